"""Logs are in the store before the backend that wrote them is gone."""

from lorafleet.layout import JobLayout
from tests.service.world import World


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
