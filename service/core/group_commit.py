"""Does calls that wait at the same time together: one transaction for a group costs little more than one for each call would.

A group begins as soon as the one before it has ended, so a lone call waits for nothing, and groups grow with the load (group
commit: DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984). It begins after all of its calls
did: what it reads is never older than the call.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

AT_ONCE = 256  # calls in one transaction: its locks are held for as long as all of them take
# Between groups while calls come fast, for each call of the group before: fewer and larger groups do more calls a second, and a
# group costs as much as some ten calls however small it is.
LINGER_S = 0.002
MAX_LINGER_S = 0.06

Call = TypeVar("Call")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Waiting(Generic[Call, Answer]):
    call: Call
    future: asyncio.Future[Answer]
    context: Context


class Coalescer(Generic[Call, Answer]):
    """Calls of one key are done in order, a group at a time; those of another key do not wait for them.

    `work` returns an answer for each call of a group, in order: an exception is raised to that caller alone. It runs in the
    context of the group's first call. When `work` itself raises, each call of the group is tried by itself, so that one cannot
    spoil the others, unless by that error the work `may_be_done`. When all of its callers have left, it is cancelled.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Call]], Awaitable[Sequence[Answer | Exception]]],
        at_once: int = AT_ONCE,
        *,
        may_be_done: Callable[[BaseException], bool] = lambda error: False,
    ) -> None:
        self._work = work
        self._may_be_done = may_be_done
        self._at_once = at_once
        self._waiting: dict[Hashable, deque[_Waiting[Call, Answer]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, key: Hashable, call: Call) -> Answer:
        waiting = _Waiting[Call, Answer](call, asyncio.get_running_loop().create_future(), copy_context())
        if key in self._waiting:
            self._waiting[key].append(waiting)
        else:
            self._waiting[key] = deque([waiting])
            task = asyncio.create_task(self._run(key), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.future

    async def _run(self, key: Hashable) -> None:
        waiting = self._waiting[key]
        while group := self._next_group(waiting):
            await self._do(group)
            if len(group) > 1:
                await asyncio.sleep(min(LINGER_S * len(group), MAX_LINGER_S))
        del self._waiting[key]

    def _next_group(self, waiting: deque[_Waiting[Call, Answer]]) -> list[_Waiting[Call, Answer]]:
        """Without those whose callers have left."""
        group: list[_Waiting[Call, Answer]] = []
        while waiting and len(group) < self._at_once:
            if not (each := waiting.popleft()).future.done():
                group.append(each)
        return group

    async def _do(self, group: Sequence[_Waiting[Call, Answer]]) -> None:
        work = asyncio.create_task(self._worked(group), context=group[0].context)

        def leave(_: object) -> None:
            if all(each.future.cancelled() for each in group):
                work.cancel()

        for each in group:
            each.future.add_done_callback(leave)
        await asyncio.wait([work])
        if work.cancelled():
            return
        error = work.exception()
        if error is not None and len(group) > 1 and not self._may_be_done(error):
            for each in group:
                await self._do([each])
            return
        for each, answer in zip(group, work.result() if error is None else [error] * len(group), strict=True):
            if each.future.done():
                continue
            if isinstance(answer, BaseException):
                each.future.set_exception(answer)
            else:
                each.future.set_result(answer)

    async def _worked(self, group: Sequence[_Waiting[Call, Answer]]) -> Sequence[Answer | Exception]:
        return await self._work([each.call for each in group])
