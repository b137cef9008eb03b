"""A caller that speaks HTTP/2 as no gRPC client would: calls whose message stops half-way, answers that are never read."""

import asyncio
import struct
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

DATA, HEADERS, SETTINGS = 0, 1, 4
END_HEADERS, END_STREAM = 4, 1
INITIAL_WINDOW_SIZE = 4


@dataclass
class Raw:
    """One connection, in plaintext."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    num_calls: int = 0

    async def call(self, method: str, data: bytes, *, is_whole: bool = True, metadata: Sequence[tuple[str, str]] = ()) -> int:
        """Begins a call and sends this of its message; answers the number of its stream."""
        stream = 2 * self.num_calls + 1
        self.num_calls += 1
        self.writer.write(_frame(HEADERS, END_HEADERS, stream, _headers(method, metadata)))
        self.writer.write(_frame(DATA, END_STREAM if is_whole else 0, stream, data))
        await self.writer.drain()
        return stream

    async def until(self, kind: int, stream: int) -> bytes:
        """What the next frame of a kind on a stream holds. Fails after ten seconds."""
        async with asyncio.timeout(10):
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
                if (head[3], int.from_bytes(head[5:])) == (kind, stream):
                    return payload


@asynccontextmanager
async def raw(port: int, window: int = 65_535):
    """`window`: how much of each answer the server may send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    writer.write(_frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window)))
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def message(text: bytes = b"") -> bytes:
    """As gRPC frames it."""
    return struct.pack(">BI", 0, len(text)) + text


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _headers(method: str, metadata: Sequence[tuple[str, str]]) -> bytes:
    known = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "test")]
    known += [("te", "trailers"), ("content-type", "application/grpc"), *metadata]
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in known)  # HPACK: literal, not indexed, no Huffman


def _text(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()
