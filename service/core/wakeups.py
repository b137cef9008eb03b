"""Wakes loops and watchers that wait for a change in this process. A missed ring costs a poll, never correctness."""

import asyncio


class Bell:
    """Rung after every commit that changed something; any number may listen."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wakes all who wait now."""
        self._rung.set()
        self._rung = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The next ring. Take it before looking at the database, so that no change falls between."""
        return self._rung


async def heard(ring: asyncio.Event, timeout_s: float) -> bool:
    """Waits for a ring taken by `listen`; False when the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            return await ring.wait()
    except TimeoutError:
        return False
