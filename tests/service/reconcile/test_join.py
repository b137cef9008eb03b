"""Late joiners: a queued job joins a pack that trains while no run is free, and nothing is lost on the way."""

from lorafleet.contract.run_manifest import Style
from service.core.resource_names import JobName
from tests.service.world import World, progress, succeeded


async def pack_of_two(world: World) -> tuple[list[JobName], str]:
    """Two jobs that train together; the world's only run is taken."""
    names = [await world.submit(job_id) for job_id in ("one", "two")]
    await world.settle()
    (run,) = world.backend.launches
    for name in names:
        await world.report(run, about(progress(1), name))
    return names, run


def about(event, name: JobName):
    event.job = str(name)
    return event


async def test_a_queued_job_joins_a_pack_that_trains_and_the_run_is_told_until_it_speaks_of_it(world: World):
    _, run = await pack_of_two(world)
    late = await world.submit("late")
    await world.settle()
    assert world.backend.launches == [run], "nothing new is launched"
    for _ in range(2):
        (told,) = (await world.report(run)).joining
        assert told.job == str(late)
        assert Style.model_validate_json(told.style_json).job == str(late)
    await world.report(run, about(progress(0, phase="preparing"), late))
    assert not (await world.report(run)).joining
    assert await world.state(late) == "STARTING"
    await world.report(run, about(progress(1), late))
    assert await world.state(late) == "RUNNING"
    await world.report(run, about(succeeded(), late))
    assert await world.state(late) == "SUCCEEDED"


async def test_a_run_that_ends_before_it_took_a_joiner_in_gives_it_back_at_no_cost(world: World):
    others, run = await pack_of_two(world)
    late = await world.submit("late")
    await world.settle()
    assert (await world.report(run)).joining
    world.backend.end(run)
    world.clock.advance(1)
    await world.settle()
    first, again = world.backend.launches
    assert (first, (await world.job(late)).attempts[0].run) == (run, run)
    # Its companions wait for their back-off, which a failed attempt costs; it does not.
    assert [await world.state(name) for name in (late, *others)] == ["STARTING", "QUEUED", "QUEUED"]
    await world.report(again, about(progress(1), late))
    assert await world.state(late) == "RUNNING"


async def test_a_lone_run_is_joined_by_nobody(world: World):
    """It was not filled up from the start: a joiner would change its last bits."""
    _, run = await world.running("alone")
    late = await world.submit("late")
    await world.settle()
    assert not (await world.report(run)).joining
    assert await world.state(late) == "QUEUED"


async def test_a_job_that_would_share_with_nobody_joins_nobody(world: World):
    _, run = await pack_of_two(world)
    shy = await world.submit("shy", scheduling={"sharing": "nobody"})
    await world.settle()
    assert not (await world.report(run)).joining
    assert await world.state(shy) == "QUEUED"
