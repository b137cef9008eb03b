"""Calls that wait at the same time are done together, and yet each as if it were alone."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

from service.core.group_commit import Coalescer
from service.db.errors import Contended, Unreachable, may_be_committed

caller: ContextVar[str] = ContextVar("caller", default="")


class Work:
    """Doubles numbers, and keeps the groups that it was given. The first group of each key waits until it may go on."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.contexts: list[str] = []
        self.go = asyncio.Event()
        self.was_cancelled = False

    async def __call__(self, calls: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(calls))
        self.contexts.append(caller.get())
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return [2 * call for call in calls]


async def test_calls_that_come_meanwhile_make_the_next_group():
    work = Work()
    double = Coalescer[int, int](work)
    calls = [asyncio.create_task(double("key", number)) for number in range(5)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8]
    assert work.groups in ([[0], [1, 2, 3, 4]], [[0, 1, 2, 3, 4]])


async def test_a_lone_call_waits_for_nothing_and_each_gets_its_own_answer():
    work = Work()
    work.go.set()
    double = Coalescer[int, int](work)
    assert [await double("key", number) for number in range(3)] == [0, 2, 4]
    assert work.groups == [[0], [1], [2]]


async def test_another_key_does_not_wait():
    work, other = Work(), asyncio.Event()

    async def by_key(calls: Sequence[str]) -> list[str]:
        if calls[0] == "slow":
            await work.go.wait()
        else:
            other.set()
        return list(calls)

    ask = Coalescer[str, str](by_key)
    slow = asyncio.create_task(ask("slow", "slow"))
    await asyncio.sleep(0)
    assert await ask("quick", "quick") == "quick"
    assert not slow.done()
    work.go.set()
    assert await slow == "slow"


async def test_no_group_is_larger_than_it_may_be():
    work = Work()
    work.go.set()
    double = Coalescer[int, int](work, at_once=2)
    assert await asyncio.gather(*(double("key", number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert max(map(len, work.groups)) == 2


async def test_an_answer_that_is_an_error_reaches_its_caller_alone():
    async def odd_ones(calls: Sequence[int]) -> list[int | Exception]:
        return [call if call % 2 else ValueError(call) for call in calls]

    ask = Coalescer[int, int](odd_ones)
    first, *found = await asyncio.gather(*(ask("key", number) for number in range(4)), return_exceptions=True)
    assert [found[0], found[2]] == [1, 3]
    assert isinstance(first, ValueError)
    assert isinstance(found[1], ValueError)


async def test_a_call_that_spoils_its_group_spoils_itself_alone():
    groups: list[list[int]] = []

    async def no_three(calls: Sequence[int]) -> list[int]:
        groups.append(list(calls))
        await asyncio.sleep(0)
        if 3 in calls:
            raise Contended("three")
        return list(calls)

    ask = Coalescer[int, int](no_three)
    found = await asyncio.gather(*(ask("key", number) for number in range(1, 6)), return_exceptions=True)
    assert found[:2] + found[3:] == [1, 2, 4, 5]
    assert isinstance(found[2], Contended)
    assert groups[-5:] == [[1], [2], [3], [4], [5]] or groups[-4:] == [[2], [3], [4], [5]]


async def test_what_may_have_been_committed_is_not_done_again():
    groups: list[list[int]] = []

    async def lost(calls: Sequence[int]) -> list[int]:
        groups.append(list(calls))
        await asyncio.sleep(0.01)
        raise Unreachable("cut", was_committing=True)

    ask = Coalescer[int, int](lost, may_be_done=may_be_committed)
    found = await asyncio.gather(*(ask("key", number) for number in range(4)), return_exceptions=True)
    assert all(isinstance(each, Unreachable) for each in found)
    assert sorted(number for group in groups for number in group) == [0, 1, 2, 3], "each once"


async def test_work_ends_when_all_of_its_callers_have_left_and_not_before():
    work = Work()
    double = Coalescer[int, int](work)
    first, second, third = (asyncio.create_task(double("key", number)) for number in range(3))
    await asyncio.sleep(0.01)
    assert len(work.groups) == 1
    group = set(work.groups[0])
    for number, task in enumerate((first, second, third)):
        if number in group:
            task.cancel()
    await asyncio.sleep(0.01)
    assert work.was_cancelled
    work.go.set()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert await double("key", 21) == 42, "those that come later are done"


async def test_a_caller_that_leaves_spoils_no_other_of_its_group():
    work = Work()
    double = Coalescer[int, int](work)
    blocker = asyncio.create_task(double("key", 0))
    await asyncio.sleep(0.01)
    left, stays = (asyncio.create_task(double("key", number)) for number in (1, 2))
    await asyncio.sleep(0)
    left.cancel()
    work.go.set()
    assert await blocker == 0
    assert await stays == 4
    assert [1] not in work.groups
    assert all(1 not in group for group in work.groups), "who left before its group began is not in it"


async def test_a_group_runs_in_the_context_of_its_first_call():
    work = Work()
    double = Coalescer[int, int](work)

    async def call(name: str, number: int) -> int:
        caller.set(name)
        return await double("key", number)

    calls = [asyncio.create_task(call("first", 1))]
    await asyncio.sleep(0.01)
    calls += [asyncio.create_task(call("second", 2)), asyncio.create_task(call("third", 3))]
    await asyncio.sleep(0.01)
    work.go.set()
    await asyncio.gather(*calls)
    assert work.contexts == ["first", "second"]
