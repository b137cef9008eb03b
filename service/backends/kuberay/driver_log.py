"""The driver's log out of what its head container wrote, which the API server gives from the beginning. Pure but for waiting."""

from collections.abc import AsyncIterator

from service.backends.kuberay.manifest import driver_line

PIECE_BYTES = 64 * 1024


async def gathered(lines: AsyncIterator[bytes], prefix: bytes) -> AsyncIterator[bytes]:
    """The driver's own lines, some at a time."""
    piece = bytearray()
    async for line in lines:
        piece += driver_line(line, prefix)
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def behind(start: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """From byte `start` on: what was read before is passed over as it comes."""
    async for piece in pieces:
        if len(piece) > start:
            yield piece[start:]
        start = max(0, start - len(piece))
