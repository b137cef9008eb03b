"""Faults that only the operators can mend: work waits for them, none of it ends, and one job's trouble with its folder is its own."""

import errno
from collections.abc import Iterable

import pytest

from lorafleet.contract import store_faults
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.errors import OperatorsFault, Unavailable
from service.backends.base import Observation, RunRef, RunRequest
from service.core import telemetry
from service.reconcile.admit import admit_once
from service.reconcile.launch import launch_once, uris_of
from service.reconcile.locked_rows import AGAIN_S
from service.store.client import Store, StoreError
from service.store.file_store import FileBacking
from tests.service.reconcile.test_join import pack_of_two
from tests.service.world import World, failed, succeeded

EXPIRED = OperatorsFault("the store credentials have expired", reason="STORE_CREDENTIALS_EXPIRED")


class Faulty:
    """A store that raises for names with a word in them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: dict[str, Exception] = {}
        put = FileBacking.put

        def put_or_raise(backing: FileBacking, uri: str, data: bytes) -> None:
            for word, error in self.errors.items():
                if word in uri:
                    raise error
            put(backing, uri, data)

        monkeypatch.setattr(FileBacking, "put", put_or_raise)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    return Faulty(monkeypatch)


async def test_jobs_wait_while_the_services_credentials_have_expired_and_start_once_they_are_good(world: World, faulty: Faulty):
    jobs = [await world.submit(f"job-{number}", scheduling={"sharing": "nobody"}) for number in range(3)]
    faulty.errors["run.json"] = EXPIRED
    for _ in range(10):
        world.clock.advance(30)
        await world.settle()
        await world.settle()  # a launch that failed ends the first
    assert world.backend.launches == []
    assert {await world.state(job) for job in jobs} == {"QUEUED"}
    told = [await world.job(job) for job in jobs]
    assert {job.reason for job in told} == {"STORE_CREDENTIALS_EXPIRED"}
    assert all("waits for the operators of the service: the store credentials have expired" in job.message for job in told)
    assert sum(len(job.attempts) for job in told) < 12, "what waits is not launched again and again"

    faulty.errors.clear()
    for _ in range(8):
        await world.settle()
        world.clock.advance(61)
        for run in world.backend.launches:
            if run in world.backend.alive:
                await world.report(run, succeeded())
                world.backend.end(run, "DRIVER_EXITED")
    assert {await world.state(job) for job in jobs} == {"SUCCEEDED"}


async def test_a_clock_that_is_set_back_meanwhile_does_not_make_the_wait_for_the_operators_longer(world: World, faulty: Faulty):
    job = await world.submit("job")
    faulty.errors["run.json"] = EXPIRED
    await world.settle()
    assert (await world.job(job)).reason == "STORE_CREDENTIALS_EXPIRED"
    faulty.errors.clear()
    world.clock.step(-3600)
    await world.settle()
    world.clock.advance(61)
    await world.settle()
    assert await world.state(job) == "STARTING"


async def test_what_stands_in_the_way_of_one_jobs_folder_holds_up_nobody_else(world: World, faulty: Faulty):
    theirs = f"file://{world.folder}/encrypted"
    waits, goes = await world.submit("waits", output={"uri": theirs}), await world.submit("goes")
    faulty.errors["encrypted"] = OperatorsFault("its key cannot be used", reason="STORE_KEY_UNUSABLE")
    await world.settle()
    assert (await world.state(waits), await world.state(goes)) == ("QUEUED", "STARTING")
    assert world.tools.launch_holds.of("", world.tools.db.even_now()) is None


async def test_a_folder_that_refuses_one_job_ends_that_job_at_once_and_no_other_of_its_pack(world: World, faulty: Faulty):
    closed, goes = await world.submit("closed", output={"uri": f"file://{world.folder}/closed"}), await world.submit("goes")
    faulty.errors["/closed/"] = StoreError("access denied", reason="ACCESS_DENIED")
    await world.settle()
    ended = await world.job(closed)
    assert (await world.state(closed), ended.reason, len(ended.attempts)) == ("FAILED", "ACCESS_DENIED", 1)
    assert await world.state(goes) == "STARTING"
    (run,) = world.backend.launches
    manifest = await world.tools.store.get(world.tools.locations.manifest(run))
    assert b"jobs/goes" in (manifest or b"")
    assert b"jobs/closed" not in (manifest or b"")


async def test_a_refusal_in_the_services_own_folder_is_no_jobs(world: World, faulty: Faulty):
    job = await world.submit("job")
    faulty.errors["/artifacts/"] = StoreError("access denied", reason="ACCESS_DENIED")
    await world.settle()
    told = await world.job(job)
    assert (await world.state(job), told.reason) == ("QUEUED", "SERVICE_STORE_REFUSES")


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_run_that_meets_a_full_disk_costs_no_attempt(world: World, retryable: bool):
    """Whatever the trainer thinks of trying again: an older one says that it is of no use."""
    name, run = await world.running("job")
    for _ in range(4):
        await world.report(run, failed("DISK_FULL", retryable=retryable, message="disk full"))
        world.backend.end(run, "DRIVER_EXITED")
        world.clock.advance(2)
        await world.settle()
        assert (await world.state(name), (await world.job(name)).reason) == ("QUEUED", "DISK_FULL")
        world.clock.advance(400)
        await world.settle()
        run = world.backend.launches[-1]
    await world.report(run, succeeded())
    assert await world.state(name) == "SUCCEEDED"


async def test_a_run_that_died_while_its_artifact_cannot_be_looked_for_holds_no_place(world: World, monkeypatch: pytest.MonkeyPatch):
    name, run = await world.running("job")

    def expired(*_: object) -> None:
        raise EXPIRED

    with monkeypatch.context() as patch:
        patch.setattr(FileBacking, "get", expired)
        world.backend.end(run, "RUN_LOST")
        world.clock.advance(2)
        await world.settle()
        assert (await world.state(name), (await world.job(name)).reason) == ("QUEUED", "STORE_CREDENTIALS_EXPIRED")
    world.clock.advance(10)
    await world.settle()
    assert len(world.backend.launches) == 2


async def test_a_run_that_died_where_the_store_refuses_for_good_is_settled(world: World, monkeypatch: pytest.MonkeyPatch):
    name, run = await world.running("job")

    def denied(*_: object) -> None:
        raise StoreError("access denied", reason="ACCESS_DENIED")

    monkeypatch.setattr(FileBacking, "get", denied)
    world.backend.end(run, "RUN_LOST")
    world.clock.advance(2)
    await world.settle()
    assert (await world.state(name), (await world.job(name)).reason) == ("QUEUED", "RETRYING")


async def test_a_store_that_is_away_for_a_moment_is_no_operators_fault(world: World, faulty: Faulty):
    name = await world.submit("job")
    faulty.errors["run.json"] = Unavailable("the store does not answer", reason="STORE_UNREACHABLE")
    await admit_once(world.tools)
    await launch_once(world.tools)
    assert await world.state(name) == "ADMITTED"
    faulty.errors.clear()
    await world.settle()
    assert await world.state(name) == "STARTING"


async def test_a_disk_that_is_full_where_runs_are_launched_lets_them_wait_with_that_reason(world: World, monkeypatch: pytest.MonkeyPatch):
    """Met outside the store, by a backend: it cost an attempt, and told its jobs of an error of the service."""
    name = await world.submit("job")

    async def full(_: RunRequest) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(world.backend, "launch", full)
        for _ in range(4):
            await world.settle()
            await world.settle()
            told = await world.job(name)
            assert (await world.state(name), told.reason) == ("QUEUED", "DISK_FULL")
            assert "waits for the operators of the service: disk full" in told.message
            assert "/somewhere" not in told.message
            world.clock.advance(400)
    await world.settle()
    assert await world.state(name) == "STARTING"


async def test_a_run_that_cannot_be_looked_after_tells_its_job_what_the_operators_must_mend(world: World, monkeypatch: pytest.MonkeyPatch):
    name, run = await world.running("job")

    async def full(_: RunRef) -> Observation:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(world.backend, "observe", full)
        world.clock.advance(10)
        await world.settle()
        told = await world.job(name)
        assert (await world.state(name), told.reason) == ("RUNNING", "DISK_READ_ONLY")
        assert told.message == f"its run waits for the operators of the service, and is tried again: {store_faults.DISK_READ_ONLY.what}"
    world.clock.advance(AGAIN_S + 1)
    await world.report(run)
    await world.settle()
    assert ((await world.job(name)).reason, (await world.job(name)).message) == ("", "")


async def test_a_job_that_cannot_join_for_a_fault_of_the_operators_says_so(world: World, faulty: Faulty):
    """It waited for a free run, it said, while it could have trained already."""
    await pack_of_two(world)
    faulty.errors["late"] = EXPIRED
    late = await world.submit("late")
    await world.settle()
    told = await world.job(late)
    assert (await world.state(late), told.reason) == ("QUEUED", "STORE_CREDENTIALS_EXPIRED")
    assert told.message == "waits for the operators of the service: the store credentials have expired"
    faulty.errors.clear()
    world.clock.advance(10)
    await world.settle()
    assert await world.state(late) == "ADMITTED"


async def test_they_are_counted(world: World, faulty: Faulty):
    counted: list[tuple[str, dict[str, str]]] = []

    class Listener:
        def count(self, name: str, amount: float, labels: dict[str, str]) -> None:
            counted.append((name, labels))

        def measure(self, name: str, value: float, labels: dict[str, str]) -> None: ...
        def level(self, name: str, change: float, labels: dict[str, str]) -> None: ...

    await world.submit("job")
    faulty.errors["run.json"] = EXPIRED
    telemetry.listen(Listener())
    try:
        await world.settle()
    finally:
        telemetry.listen(None)
    of = {labels["where"] for name, labels in counted if name == "lorafleet_operators_faults_total"}
    assert of == {"store", "run"}


async def test_runs_are_told_where_buckets_are_and_what_trains_already_takes_none_in(world: World, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, ...]] = []

    async def regions(_: Store, uris: Iterable[str]) -> dict[str, str]:
        asked.append(tuple(uris))
        return {"raw": "eu-central-1"}

    monkeypatch.setattr(Store, "regions", regions)
    _, run = await pack_of_two(world)
    manifest = RunManifest.model_validate_json(await world.tools.store.get(world.tools.locations.manifest(run)) or b"")
    assert manifest.bucket_regions == {"raw": "eu-central-1"}
    assert set(uris_of(manifest.pack[0])) < set(asked[0])
    assert world.backend.requests[run].bucket_regions == {"raw": "eu-central-1"}
    joins = await world.submit("joins")
    await world.settle()
    assert await world.state(joins) == "QUEUED"
    monkeypatch.undo()
    world.clock.advance(10)
    await world.settle()
    assert await world.state(joins) == "ADMITTED", "without such a bucket it would have joined"
