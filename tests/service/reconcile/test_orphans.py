"""Runs that live without a place in the database are ended, whoever launched them late."""

from service.backends.base import RunRequest
from service.db import events
from service.reconcile.orphans import end_orphans_once
from tests.service.world import World, progress


async def late_launch(world: World, run: str, instance: str | None = None) -> None:
    """What a replica does that was paused before it told the backend, and wakes up."""
    async with world.tools.db.snapshot() as tx:
        ours = (await events.service(tx)).instance
    request = RunRequest(
        run_id=run, instance=instance or ours, manifest_uri="file:///late", token=world.tools.tokens.of(run, world.clock.now())
    )
    await world.backend.launch(request)


async def test_a_run_that_was_settled_before_its_late_launch_is_ended(world: World):
    name = await world.submit()
    world.backend.reachable = False
    await world.settle()  # admitted; the launch gets nowhere
    run = (await world.job(name)).attempts[0].run
    await world.jobs.cancel(name)
    world.backend.reachable = True
    await world.settle()
    assert await world.state(name) == "CANCELLED"

    await late_launch(world, run)
    assert world.backend.alive == [run]
    await end_orphans_once(world.tools)
    assert world.backend.alive == []


async def test_a_run_that_the_database_never_heard_of_is_ended(world: World):
    await late_launch(world, "run-0123456789abcdef")
    await end_orphans_once(world.tools)
    assert world.backend.alive == []


async def test_a_run_with_a_place_is_left_alone(world: World):
    _, run = await world.started()
    await end_orphans_once(world.tools)
    await world.report(run, progress(1))
    await end_orphans_once(world.tools)
    assert world.backend.alive == [run]


async def test_a_run_of_another_service_on_the_same_backend_is_left_alone(world: World):
    await late_launch(world, "run-0123456789abcdef", instance="another")
    await end_orphans_once(world.tools)
    assert world.backend.alive == ["run-0123456789abcdef"]
