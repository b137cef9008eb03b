"""At most one attempt of a job at a time, and what an old one says or leaves is no word about the new one."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.control import lifecycle
from service.control.attempts import Gone
from service.control.lifecycle import Ending, Job, JobState, Outcome
from service.core.resource_names import JobName
from service.db import jobs, runs
from service.runs.settlement import settle
from tests.service.world import World, failed, succeeded


async def queued_again(world: World, name: JobName) -> None:
    """As RetryFailed does it."""
    async with world.tools.db.transaction() as tx:
        row = await jobs.by_name(tx, name.tenant, name.job_id)
        assert row is not None
        jobs.save(tx, row, lifecycle.retry(jobs.value(row)))


async def test_a_job_that_is_tried_again_waits_for_its_last_run_to_be_gone(world: World):
    world.with_tools(limits=replace(world.tools.limits, max_running_runs=4))
    name, first = await world.running()
    await world.report(first, failed("NAN_LOSS", retryable=False))
    await queued_again(world, name)
    await world.settle()
    assert world.backend.launches == [first], "the first run lives, although there is room for another"

    world.backend.end(first)
    world.clock.advance(5)
    await world.settle()
    assert len(world.backend.launches) == 2
    assert await world.state(name) == "STARTING"


async def test_a_run_that_failed_a_style_cannot_make_it_succeed_afterwards(world: World):
    name, run = await world.running()
    await world.report(run, failed("STORE_AWAY", retryable=True))
    await world.report(run, succeeded())
    assert await world.state(name) == "RUNNING"
    world.backend.end(run)
    world.clock.advance(5)
    await world.settle()
    job = await world.job(name)
    assert (job.attempts[0].reason, job.reason) == ("STORE_AWAY", "RETRYING")


@pytest.mark.parametrize("ended", sorted(lifecycle.FINISHED))
@pytest.mark.parametrize("word", list(Outcome))
def test_a_job_that_has_ended_hears_no_other_end(ended: JobState, word: Outcome):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job(state=ended, end_time=at)
    assert lifecycle.style_ended(job, Ending(outcome=word), at) == job


async def test_the_end_of_a_run_changes_nothing_of_a_later_attempt(world: World):
    name, run = await world.running()
    async with world.tools.db.transaction() as tx:
        row = await jobs.by_name(tx, name.tenant, name.job_id)
        assert row is not None
        row.attempt += 1  # another run has it by now
    async with world.tools.db.transaction() as tx:
        old = await runs.lock(tx, run)
        assert old is not None
        await settle(tx, old, Gone(reason="RUN_LOST"), {}, world.tools.retry)
    async with world.tools.db.transaction() as tx:
        row = await jobs.by_name(tx, name.tenant, name.job_id)
        assert row is not None
        assert (row.state, row.failures) == (JobState.RUNNING.value, 0)
