"""Logs are in the store before the backend that wrote them is gone."""

from lorafleet.layout import JobLayout
from service.db.models import RunLogRow
from tests.service.world import World, progress, succeeded


async def _stored(world: World, name) -> bytes | None:
    return await world.tools.store.get(JobLayout((await world.job(name)).output_uri).log(1))


async def test_a_log_is_copied_while_the_run_lives_and_once_more_at_its_end(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\n"
    await world.copy_logs()
    assert await _stored(world, name) == b"one\n"

    world.backend.written[run] = b"one\ntwo\n"
    world.backend.end(run)
    world.clock.advance(10)
    await world.settle()
    await world.copy_logs()
    assert await _stored(world, name) == b"one\ntwo\n"
    world.backend.written[run] = b"never read"
    world.clock.advance(60)
    await world.copy_logs()
    assert await _stored(world, name) == b"one\ntwo\n"


async def test_a_backend_that_lost_a_log_takes_nothing_from_the_store(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\n"
    await world.copy_logs()
    world.backend.written[run] = b""
    world.backend.end(run)
    world.clock.advance(10)
    await world.settle()
    await world.copy_logs()
    assert await _stored(world, name) == b"one\n"


async def test_each_style_of_a_pack_gets_its_own_lines(world: World):
    names = [await world.submit("one"), await world.submit("two")]
    await world.settle()
    (run,) = world.backend.launches
    world.backend.written[run] = b"both\n" + b"".join(b"(RayTrainWorker pid=7) [%s] step\n" % str(name).encode() for name in names)
    await world.copy_logs()
    for name in names:
        assert await _stored(world, name) == b"both\n(RayTrainWorker pid=7) [%s] step\n" % str(name).encode()


async def test_runs_on_warm_workers_each_get_their_part_and_the_first_is_whole_while_they_live(world: World):
    first, run = await world.running("first")
    await world.report(run, succeeded())
    await world.report(run, idle=True)
    second = await world.submit("second")
    await world.settle()
    told = (await world.report(run, idle=True)).next_run
    world.backend.written[run] = f"one\n== run {told.run} ==\ntwo\n".encode()
    await world.report(told.run, progress(1))
    world.clock.advance(6)
    await world.copy_logs()
    assert await _stored(world, first) == b"one\n"
    assert await _stored(world, second) == f"== run {told.run} ==\ntwo\n".encode()


async def test_a_job_whose_workers_wait_has_its_whole_log(world: World):
    """Whoever follows it must not have to wait until the workers go."""
    name, run = await world.running()
    await world.report(run, succeeded())
    await world.report(run, idle=True)
    world.backend.written[run] = b"one\n"
    await world.copy_logs()
    world.clock.advance(6)
    await world.copy_logs()
    async with world.tools.db.snapshot() as tx:
        copy = await tx.session.get(RunLogRow, run)
    assert copy is not None
    assert copy.complete
    assert await _stored(world, name) == b"one\n"
