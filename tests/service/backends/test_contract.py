"""Every backend keeps the same contract: idempotent calls, and an absence that is for ever."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest

from lorafleet.errors import Unavailable
from service.backends.base import Alive, Backend, RunRef, RunRequest
from service.backends.fake import FakeBackend
from service.backends.http import Http
from service.backends.ray_jobs import JoinedRay, RayJobs
from service.control.attempts import Gone
from tests.service.backends.fake_ray import TOKEN, FakeRay

RUN = RunRequest(run_id="run-1", instance="ours", manifest_uri="s3://b/run.json", token="secret-token")
LOG = "a line, größer\nand another\n".encode() * 3


@dataclass
class Seam:
    backend: Backend
    num_launched: Callable[[], int]
    end: Callable[[], None]
    go_away: Callable[[], None]


@pytest.fixture(params=["fake", "ray_jobs"])
async def seam(request: pytest.FixtureRequest) -> AsyncIterator[Seam]:
    if request.param == "fake":
        fake = FakeBackend(written={"run-1": LOG}, piece_bytes=7)
        yield Seam(fake, lambda: len(fake.launches), lambda: fake.end("run-1"), lambda: setattr(fake, "reachable", False))
        return
    ray = FakeRay(logs={"job-driver-run-1.log": LOG})
    backend = joined(ray)
    end = lambda: ray.jobs["run-1"].update(status="FAILED", driver_exit_code=1, message="x")  # noqa: E731
    yield Seam(backend, lambda: len(ray.submissions), end, lambda: setattr(ray, "away", True))
    await backend.close()


def joined(ray: FakeRay, token: str = TOKEN) -> RayJobs:
    http = Http(transport=ray.transport())
    return RayJobs(JoinedRay("http://ray:8265/", token, http), http)


async def test_a_launched_run_is_alive(seam: Seam):
    handle = await seam.backend.launch(RUN)
    assert await seam.backend.observe(RunRef(run_id="run-1", handle=handle)) == Alive()


async def test_a_repeated_launch_finds_the_first(seam: Seam):
    assert await seam.backend.launch(RUN) == await seam.backend.launch(RUN)
    assert seam.num_launched() == 1


async def test_a_launch_after_the_end_starts_nothing(seam: Seam):
    handle = await seam.backend.launch(RUN)
    seam.end()
    assert await seam.backend.launch(RUN) == handle
    assert seam.num_launched() == 1
    assert isinstance(await seam.backend.observe(RunRef(run_id="run-1", handle=handle)), Gone)


async def test_a_run_whose_handle_was_lost_is_found(seam: Seam):
    await seam.backend.launch(RUN)
    assert await seam.backend.observe(RunRef(run_id="run-1", handle=None)) == Alive()


async def test_an_unknown_run_is_gone(seam: Seam):
    assert isinstance(await seam.backend.observe(RunRef(run_id="run-2", handle=None)), Gone)


async def test_a_stopped_run_is_gone_and_may_be_stopped_again(seam: Seam):
    ref = RunRef(run_id="run-1", handle=await seam.backend.launch(RUN))
    await seam.backend.stop(ref)
    await seam.backend.stop(ref)
    assert isinstance(await seam.backend.observe(ref), Gone)


async def test_stopping_an_unknown_run_is_harmless(seam: Seam):
    await seam.backend.stop(RunRef(run_id="run-2", handle=None))


async def test_logs_are_read_from_any_byte_on_and_are_empty_for_an_unknown_run(seam: Seam):
    handle = await seam.backend.launch(RUN)
    for start in (0, 1, 7, len(LOG) - 1, len(LOG), len(LOG) + 1):
        assert await _log(seam, "run-1", handle, start) == LOG[start:]
    assert await _log(seam, "run-2", handle) == b""


async def test_a_run_that_has_written_nothing_yet_has_no_log(seam: Seam):
    assert await _log(seam, "run-3", await seam.backend.launch(replace(RUN, run_id="run-3"))) == b""


async def _log(seam: Seam, run_id: str, handle: str, start: int = 0) -> bytes:
    return b"".join([piece async for piece in seam.backend.logs(RunRef(run_id=run_id, handle=handle), start)])


async def test_living_runs_of_an_instance_are_listed_and_no_others(seam: Seam):
    assert await seam.backend.runs("ours") == []
    ref = RunRef(run_id="run-1", handle=await seam.backend.launch(RUN))
    assert await seam.backend.runs("ours") == [ref]
    assert await seam.backend.runs("another") == []
    await seam.backend.stop(ref)
    assert await seam.backend.runs("ours") == []


async def test_a_backend_that_is_away_says_so_and_nothing_else(seam: Seam):
    ref = RunRef(run_id="run-1", handle=await seam.backend.launch(RUN))
    seam.go_away()
    for call in (
        seam.backend.launch(RUN),
        seam.backend.observe(ref),
        seam.backend.stop(ref),
        _log(seam, "run-1", ref.handle or ""),
        seam.backend.runs("ours"),
    ):
        with pytest.raises(Unavailable):
            await call
