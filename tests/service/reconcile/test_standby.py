"""Workers that stand by: they come up on an idle server, the first job goes to them, and nobody ever waits for them in vain."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from lorafleet.contract import layout
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.errors import FailedPrecondition, LorafleetError
from lorafleet.v1 import report_service_pb2 as rpb
from service.control.admission import Limits
from service.control.capacity import Hardware
from service.control.standby import End, StandbyRules
from service.core.resource_names import JobName
from service.db import hosts
from service.db.models import RunRow, TenantRow
from service.reconcile import standby
from service.reconcile.admit import admit_once
from service.reconcile.context import StandbyMemory
from service.reconcile.launch import launch_once
from service.reconcile.orphans import end_orphans_once
from service.reconcile.standby import stand_by_once
from tests.service.runs.test_warm_workers import idle
from tests.service.world import World, progress, succeeded

MACHINE = Hardware(gpus=0, cpus=2, memory_bytes=8 * 2**30)


@pytest.fixture(autouse=True)
def one_stands_by(world: World) -> None:
    world.backend.fixed_hardware = MACHINE
    world.with_tools(standby=StandbyRules(num_groups=1), limits=Limits(max_running_runs=1))


async def live(world: World) -> list[RunRow]:
    async with world.tools.db.snapshot() as tx:
        return list(await tx.session.scalars(select(RunRow).where(RunRow.state != "GONE").order_by(RunRow.create_time, RunRow.id)))


async def pass_time(world: World, seconds: float = 11.0) -> None:
    """All that the loops do of themselves meanwhile."""
    for _ in range(3):
        await stand_by_once(world.tools)
        world.clock.advance(seconds / 2)
        await world.settle()
    while await stand_by_once(world.tools):
        await world.settle()


async def comes_up(world: World) -> str:
    """A group that was launched, and does not report yet."""
    await pass_time(world)
    [run] = world.backend.alive
    return run


async def stands_by(world: World) -> str:
    """A group that is up."""
    run = await comes_up(world)
    await world.report(run, source="worker-0")
    await idle(world, run)
    return run


async def begun(world: World, host: str, **changes) -> tuple[JobName, str]:
    """A job, and its run that these workers have begun."""
    name = await world.submit(**changes)
    await world.settle()
    next_run = (await idle(world, host)).next_run
    await world.report(next_run.run, progress(1), source="worker-0")
    return name, next_run.run


async def test_the_first_job_of_an_idle_server_goes_to_workers_that_stand_by(world: World):
    host = await stands_by(world)
    uri = layout.run_manifest(world.tools.locations.artifacts_uri, host)
    manifest = RunManifest.model_validate_json(await world.tools.store.get(uri) or b"")
    assert manifest.pack == ()
    assert manifest.standby is not None
    assert world.backend.store_envs[host] == {}, "no tenant's credentials"
    name, run = await begun(world, host)
    assert await world.state(name) == "RUNNING"
    assert world.backend.launches == [host], "nothing was started for it"
    assert [row.id for row in await live(world)] == [run]
    await world.report(run, succeeded(), source="worker-0")
    await idle(world, run)
    assert await world.state(name) == "SUCCEEDED"


@pytest.mark.parametrize(
    "changes", [{"cluster": {"zero_stage": 1}}, {"training": {"precision": "bf16"}}, {"scheduling": {"sharing": "nobody"}}]
)
async def test_whatever_trains_on_such_workers_may_have_them(world: World, changes: dict):
    host = await stands_by(world)
    name, _ = await begun(world, host, **changes)
    assert await world.state(name) == "RUNNING"


async def test_after_their_first_job_they_are_warm_workers_like_others(world: World):
    host = await stands_by(world)
    name, run = await begun(world, host, base_model={"uri": f"file://{world.folder}/base"})
    await world.report(run, succeeded(), source="worker-0")
    await idle(world, run)
    world.clock.advance(world.tools.stop.warm_idle_s)
    answer = await idle(world, run)
    assert [each.action for each in answer.directives] == [rpb.DIRECTIVE_ACTION_RELEASE], "they do not wait for ever any more"
    assert name


async def test_workers_that_stand_by_wait_for_as_long_as_it_takes(world: World):
    host = await stands_by(world)
    for _ in range(100):
        world.clock.advance(8)
        assert not (await idle(world, host)).directives
    await world.settle()
    assert world.backend.alive == [host]


@pytest.mark.parametrize("is_up", [True, False])
async def test_they_give_way_at_once_to_a_job_that_asks_for_others(world: World, is_up: bool):
    host = await (stands_by if is_up else comes_up)(world)
    name = await world.submit(cluster={"cpus_per_worker": 2.0})
    await world.settle()
    assert host in world.backend.stops
    world.clock.advance(2)
    await world.settle()
    assert await world.state(name) == "STARTING"
    assert world.backend.alive == [world.backend.launches[-1]]


async def test_a_tenant_with_store_credentials_of_its_own_does_not_get_them(world: World):
    host = await stands_by(world)
    await world.submit()
    async with world.tools.db.transaction() as tx:
        tx.session.add(TenantRow(id="acme", create_time=tx.now, update_time=tx.now, store_credentials="acme-keys"))
    await admit_once(world.tools)
    async with world.tools.db.snapshot() as tx:
        assert (await tx.session.get_one(RunRow, host)).stop_reason == hosts.RELEASED
        assert await hosts.coming(tx, await tx.session.get_one(RunRow, host)) is None


async def test_a_job_waits_for_workers_that_still_come_up_instead_of_starting_its_own(world: World):
    host = await comes_up(world)
    name = await world.submit()
    await world.settle()
    assert await world.state(name) == "ADMITTED"
    await world.report(host, source="worker-0")
    next_run = (await idle(world, host)).next_run
    assert next_run.run
    await world.report(next_run.run, progress(1), source="worker-0")
    assert await world.state(name) == "RUNNING"
    assert world.backend.launches == [host]
    [row] = await live(world)
    assert row.handle == f"fake:{host}", "it is observed where its workers are"


@pytest.mark.parametrize("is_up", [True, False])
async def test_workers_that_die_before_they_begin_it_cost_a_job_nothing(world: World, is_up: bool):
    host = await (stands_by if is_up else comes_up)(world)
    name = await world.submit()
    await world.settle()
    world.backend.end(host)
    for _ in range(3):
        world.clock.advance(2)
        await world.settle()
    assert await world.state(name) == "STARTING", "on workers of its own"
    assert [attempt.reason for attempt in (await world.job(name)).attempts] == ["HOST_GONE", ""]


async def test_a_group_that_may_not_be_launched_lets_its_job_go(world: World):
    def refuse() -> None:
        raise LorafleetError("no", reason="RAY_REFUSED")

    await stand_by_once(world.tools)
    world.clock.advance(11)
    assert await stand_by_once(world.tools)
    name = await world.submit()
    await admit_once(world.tools)
    assert await world.state(name) == "ADMITTED"
    world.backend.before_launch = refuse
    await launch_once(world.tools)
    world.backend.before_launch = None
    await world.settle()
    assert await world.state(name) == "STARTING"


async def test_killed_between_launch_and_its_record_it_is_launched_once(world: World):
    def die() -> None:
        raise asyncio.CancelledError

    await stand_by_once(world.tools)
    world.clock.advance(11)
    await stand_by_once(world.tools)
    world.backend.after_launch = die
    with pytest.raises(asyncio.CancelledError):
        await launch_once(world.tools)
    world.backend.after_launch = None
    world.clock.advance(60)
    world.with_tools(standing=StandbyMemory())
    await world.settle()
    await end_orphans_once(world.tools)
    assert world.backend.launches == world.backend.alive
    assert len(await live(world)) == 1
    assert not await stand_by_once(world.tools), "the next process knows it from the database"


async def test_a_group_that_fails_is_not_tried_again_and_again(world: World):
    for number in range(1, 4):
        await pass_time(world)
        assert len(world.backend.launches) == number
        world.backend.end(world.backend.launches[-1])
        world.clock.advance(2)
        await world.settle()
        await pass_time(world)
        assert len(world.backend.launches) == number, "not at once"
        world.clock.advance(world.tools.standby.backoff_s(number))
    await pass_time(world)
    assert len(world.backend.launches) == 4


async def test_a_group_that_goes_silent_is_stopped(world: World):
    host = await stands_by(world)
    world.clock.advance(world.tools.stop.heartbeat_timeout_s + 1)
    await world.settle()
    assert world.backend.stops == [host]
    world.clock.advance(2)
    await world.settle()
    with pytest.raises(FailedPrecondition, match="over or was replaced"):
        await idle(world, host)


async def test_workers_that_report_while_they_come_up_are_not_told_to_go(world: World):
    host = await comes_up(world)
    for _ in range(20):
        answer = await world.report(host, source="worker-0")
        assert not answer.directives
        world.clock.advance(10)
        await world.settle()
    assert world.backend.stops == []


async def test_a_server_without_standby_ends_what_one_with_it_has_left(world: World):
    host = await stands_by(world)
    world.with_tools(standby=StandbyRules(num_groups=0), standing=StandbyMemory())
    assert await stand_by_once(world.tools)
    await world.settle()
    assert world.backend.stops == [host]


async def test_they_take_the_shape_that_the_newest_job_asked_for(world: World):
    _, run = await world.running(cluster={"cpus_per_worker": 2.0})
    await world.report(run, succeeded())
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    host = await comes_up(world)
    assert world.backend.requests[host].cluster.cpus_per_worker == 2.0


async def test_with_a_gpu_there_they_have_one(world: World):
    world.backend.fixed_hardware = Hardware(gpus=1, cpus=2, memory_bytes=8 * 2**30)
    host = await comes_up(world)
    assert world.backend.requests[host].cluster.gpus_per_worker == 1.0


async def test_none_comes_up_while_the_backend_does_not_answer(world: World):
    await stand_by_once(world.tools)
    world.clock.advance(11)
    world.backend.reachable = False
    assert not await stand_by_once(world.tools)
    assert await live(world) == []


async def test_they_are_no_jobs_run(world: World):
    """They count for no tenant's quota and hold no place that a job needs."""
    async with world.tools.db.transaction() as tx:
        tx.session.add(TenantRow(id="acme", create_time=tx.now, update_time=tx.now, max_running_jobs=1))
    host = await stands_by(world)
    name, run = await begun(world, host)
    assert await world.state(name) == "RUNNING"
    assert (await world.job(name)).attempts[0].pack_size == 1
    second = await world.submit()
    await world.settle()
    assert (await world.job(second)).reason in {"TENANT_QUOTA", "NO_FREE_RUN"}
    assert run


async def test_what_their_driver_was_handed_goes_with_them(world: World):
    host = await stands_by(world)
    await world.copy_logs()
    assert world.backend.forgotten == []
    world.backend.end(host)
    world.clock.advance(2)
    await world.settle()
    world.clock.advance(10)
    await world.copy_logs()
    assert world.backend.forgotten == [host]


async def test_two_replicas_that_look_at_the_same_moment_begin_one(world: World, monkeypatch: pytest.MonkeyPatch):
    await stand_by_once(world.tools)
    world.clock.advance(11)
    ping = world.backend.ping

    async def while_another_begins() -> None:
        monkeypatch.setattr(world.backend, "ping", ping)
        other = replace(world.tools, standing=StandbyMemory(activity=world.tools.standing.activity))
        assert await stand_by_once(other)

    monkeypatch.setattr(world.backend, "ping", while_another_begins)
    assert not await stand_by_once(world.tools)
    assert len(await live(world)) == 1


async def test_a_group_whose_job_came_at_the_same_moment_is_not_ended(world: World):
    host = await stands_by(world)
    await world.submit()
    await admit_once(world.tools)
    assert not await standby._end(world.tools, End(run_id=host, why="no more are wanted"))
    assert host not in world.backend.stops
