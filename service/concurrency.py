"""Many small pieces of work, in bounds. Knows nothing of what they do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
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


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` goes on while the block does, and is cancelled at its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
