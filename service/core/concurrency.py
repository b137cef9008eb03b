"""Does many small pieces of work, in bounds. Knows nothing of what they do."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def slices(things: Sequence[Thing], size: int) -> Iterator[Sequence[Thing]]:
    """`things` in order, at most `size` at a time."""
    return (things[start : start + size] for start in range(0, len(things), size))


async def bounded(work: Callable[[Thing], Awaitable[Result]], things: Iterable[Thing], at_once: int) -> list[Result]:
    """`work` of every thing, in their order. The first that raises ends all: no more are begun, and the rest are cancelled."""
    queue = iter(enumerate(things))
    results: dict[int, Result] = {}

    async def worker() -> None:
        for place, thing in queue:
            results[place] = await work(thing)

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
    return [results[place] for place in range(len(results))]


class Lanes:
    """Work for many tenants: a few pieces at once, and each tenant's one after another, so that who asks for much waits for himself."""

    def __init__(self, at_once: int) -> None:
        self._at_once = asyncio.Semaphore(at_once)
        self._lanes: dict[str, tuple[asyncio.Lock, int]] = {}  # with the number of those who are in it or wait for it

    @asynccontextmanager
    async def of(self, tenant: str) -> AsyncGenerator[None]:
        """The block is the tenant's only one."""
        lane, num = self._lanes.get(tenant, (asyncio.Lock(), 0))
        self._lanes[tenant] = lane, num + 1
        try:
            async with lane, self._at_once:
                yield
        finally:
            lane, num = self._lanes.pop(tenant)
            if num > 1:
                self._lanes[tenant] = lane, num - 1


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """`work` goes on while the block does, and is cancelled at its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
