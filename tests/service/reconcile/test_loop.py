"""A loop works while there is work, waits when there is none, survives what its step raises, and stops when told."""

import asyncio

from service.core.wakeups import Bell
from service.observability.health import Pulse
from service.reconcile.loop import Loop, run


async def test_a_ring_wakes_the_loop(tmp_path):
    bell, stopping, steps = Bell(), asyncio.Event(), asyncio.Queue[int]()

    async def step() -> bool:
        steps.put_nowait(1)
        return False

    task = asyncio.create_task(run(Loop(name="test", step=step, every_s=3600), bell, stopping, Pulse()))
    async with asyncio.timeout(5):
        await steps.get()
        await asyncio.sleep(0)  # the loop reaches its wait
        bell.ring()
        await steps.get()
        stopping.set()
        bell.ring()
        await task


async def test_what_is_only_shown_wakes_watchers_and_no_loop():
    bell = Bell()
    shown, work = bell.listen(), bell.listen_for_work()
    bell.ring(work=False)
    assert (shown.is_set(), work.is_set()) == (True, False)
    bell.ring()
    assert work.is_set()


async def test_a_step_that_raises_is_tried_again(caplog):
    bell, stopping = Bell(), asyncio.Event()
    calls = 0

    async def step() -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug")
        stopping.set()
        return False

    async with asyncio.timeout(5):
        await run(Loop(name="test", step=step, every_s=0.001), bell, stopping, Pulse())
    assert calls == 2
    assert "loop test failed" in caplog.text


async def test_a_loop_that_only_time_brings_work_sleeps_through_rings_but_not_through_the_end():
    bell, stopping = Bell(), asyncio.Event()
    calls = 0

    async def step() -> bool:
        nonlocal calls
        calls += 1
        return False

    task = asyncio.create_task(run(Loop(name="test", step=step, every_s=3600, hears=False), bell, stopping, Pulse()))
    async with asyncio.timeout(5):
        for _ in range(5):
            bell.ring()
            await asyncio.sleep(0)
        stopping.set()
        await task
    assert calls == 1
