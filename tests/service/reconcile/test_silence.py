"""An outage of ours is not the silence of runs: after it they get their time anew."""

import pytest

from service.reconcile.silence import BREAK_S, Hearing
from service.reconcile.stop import notice_silence_once
from tests.service.world import World

SILENCE_S = 90.0  # more than a run that trains is allowed


class Monotonic:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


async def test_a_run_that_could_not_be_heard_gets_its_time_anew(world: World, monotonic: Monotonic):
    """The database was away, or this process stood still, for longer than a run may be silent."""
    world.with_tools(hearing=Hearing(monotonic=monotonic))
    name, _ = await world.running("one")
    await notice_silence_once(world.tools)
    world.clock.advance(SILENCE_S)
    monotonic.now += SILENCE_S
    await world.settle()
    assert (await world.state(name), world.backend.stops) == ("RUNNING", [])

    for _ in range(int(SILENCE_S / BREAK_S) + 1):  # from here on it is looked for without a break, and is silent
        world.clock.advance(BREAK_S)
        monotonic.now += BREAK_S
        await world.settle()
    assert len(world.backend.stops) == 1


async def test_silence_while_nobody_takes_reports_is_no_runs_fault(world: World, monotonic: Monotonic):
    answers = True

    async def probe() -> bool:
        return answers

    world.with_tools(hearing=Hearing(monotonic=monotonic, probe=probe))
    name, _ = await world.running("one")
    await notice_silence_once(world.tools)
    answers = False
    for _ in range(int(SILENCE_S / BREAK_S)):
        world.clock.advance(BREAK_S)
        await world.settle()
    assert (await world.state(name), world.backend.stops) == ("RUNNING", [])
    answers = True
    world.clock.advance(SILENCE_S)
    await world.settle()
    assert len(world.backend.stops) == 1


async def test_a_probe_that_never_was_answered_protects_nobody(world: World, monotonic: Monotonic):
    """Perhaps only runs may reach where they report: a run that hangs must not hold its place for ever."""

    async def probe() -> bool:
        return False

    world.with_tools(hearing=Hearing(monotonic=monotonic, probe=probe))
    await world.running("one")
    world.clock.advance(SILENCE_S)
    await world.settle()
    assert len(world.backend.stops) == 1
