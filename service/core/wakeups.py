"""Wakes loops and watchers that wait for a change in this process. A missed ring costs a poll, never correctness."""

import asyncio


class Bell:
    """Rung after every commit that changed something; any number may listen.

    Most commits of a running job are its progress, which somebody may watch and no loop acts on: loops listen for work alone.
    """

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._work = asyncio.Event()

    def ring(self, *, work: bool = True) -> None:
        """Wakes all who wait now; without `work`, those alone who only look."""
        self._rung.set()
        self._rung = asyncio.Event()
        if work:
            self._work.set()
            self._work = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The next ring. Take it before looking at the database, so that no change falls between."""
        return self._rung

    def listen_for_work(self) -> asyncio.Event:
        """The next ring for those who act."""
        return self._work


async def heard(ring: asyncio.Event, timeout_s: float) -> bool:
    """Waits for a ring taken by `listen`; False when the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            return await ring.wait()
    except TimeoutError:
        return False
