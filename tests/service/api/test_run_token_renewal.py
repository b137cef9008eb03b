"""A run that outlives its token: the trainer's own reporter against the real servicer, whose clock the test moves."""

import asyncio
from collections.abc import Callable

import pytest

from service.runs import reports
from tests.service.api.conftest import api
from tests.service.api.served import Api
from trainer.report import Address, Reporter

__all__ = ["api"]
A_LITTLE_MORE_THAN_HALF_S = 7 * 3600.0  # of the twelve hours that a token is good


async def test_a_run_that_lives_longer_than_its_token_goes_on_reporting(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reports, "NEXT_REPORT_S", 0.05)
    world = api.world
    name, run = await world.started("one")
    launched_with = Address(run, api.address, world.tools.tokens.of(run, world.clock.now()), interval_s=0.05)
    with Reporter(launched_with, source="worker-0") as reporter:
        await until(lambda: reporter.flush(timeout_s=0))
        for step in range(1, 4):
            before = reporter.address.token
            world.clock.advance(A_LITTLE_MORE_THAN_HALF_S)
            reporter.progress(str(name), phase="training", step=step, max_steps=9)
            await until(lambda before=before: reporter.address.token != before)
        assert (await world.job(name)).progress.step == 3
        followed_by = reporter.address

    with Reporter(followed_by, source="worker-1") as reporter:
        reporter.progress(str(name), phase="training", step=4, max_steps=9)
        await until(lambda: reporter.flush(timeout_s=0))
    assert (await world.job(name)).progress.step == 4, "who speaks for the run next has the newest token"

    stale = asyncio.Event()
    loop = asyncio.get_running_loop()
    with Reporter(launched_with, source="worker-2", on_stale=lambda: loop.call_soon_threadsafe(stale.set)):
        await asyncio.wait_for(stale.wait(), 30)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(reached):  # noqa: ASYNC110 (the reporter is a thread)
            await asyncio.sleep(0.02)
