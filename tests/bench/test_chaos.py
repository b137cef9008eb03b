"""The harness of `make chaos` notices what it is there to notice: each check is shown a history in which its promise is broken."""

import asyncio
import json
import random
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from bench.chaos import checks, faults, history, lines, poison, registry, replica, starving
from bench.chaos.checks import Stored
from bench.chaos.driver import Reports
from bench.chaos.history import History, Stay, lives
from bench.chaos.load import Records
from bench.chaos.sim_backend import SimBackend
from bench.chaos.simulator import Simulator
from bench.chaos.starving import Look, Row
from lorafleet.catalog import FAMILIES
from lorafleet.contract.run_manifest import RunManifest, Style
from lorafleet.errors import LorafleetError, Unavailable
from lorafleet.spec import parse
from service.backends.base import Alive, RunRef, RunRequest
from service.control.attempts import Gone
from service.planning.base_shapes import read_shapes
from service.store import file_store
from service.store.client import Store
from service.store.file_store import FileBacking
from service.untrusted.parsing import Parser
from tests.service.test_poisoned_bases import make_base

JOB = "tenants/acme/jobs/one"


def told(*records: dict) -> history.Lives:
    return lives([{"t": float(at), **record} for at, record in enumerate(records)])


def began(run: str, *jobs: str) -> dict:
    return {"what": "began", "host": run, "run": run, "jobs": list(jobs)}


def over(run: str) -> dict:
    return {"what": "run_over", "host": run, "run": run}


def stored(*states: str, versions: int | None = None) -> Stored:
    events = [(version, state) for version, state in enumerate(states, start=1)]
    return Stored(events={JOB: events}, versions={JOB: versions or len(states)}, states={JOB: states[-1]}, living_hosts=frozenset())


def found(database: Stored, lived: history.Lives, accepted: tuple[str, ...] = (JOB,), **limits) -> checks.Findings:
    records = Records(accepted=list(accepted))
    return checks.check(records, database, lived, max_hosts=limits.get("max_hosts", 1), max_running=limits.get("max_running", {}))


GOOD = told(
    {"what": "launched", "host": "a"},
    began("a", JOB),
    {"what": "committed", "job": JOB, "run": "a"},
    over("a"),
    {"what": "ended", "host": "a"},
)
ONCE = stored("QUEUED", "ADMITTED", "STARTING", "RUNNING", "SUCCEEDED", "SUCCEEDED")


def test_a_good_end_is_no_finding():
    assert found(ONCE, GOOD).all == []


def test_an_accepted_job_that_is_missing_or_has_not_ended_is_lost():
    assert len(found(ONCE, GOOD, accepted=(JOB, "tenants/acme/jobs/two")).lost) == 1
    assert found(stored("QUEUED", "ADMITTED"), told()).lost


def test_a_job_that_ends_twice_or_leaves_its_end_is_doubled():
    assert found(stored("QUEUED", "SUCCEEDED", "QUEUED", "SUCCEEDED"), GOOD).doubled
    assert found(stored("QUEUED", "FAILED", "SUCCEEDED"), GOOD).doubled


def test_two_runs_of_a_job_at_once_are_doubled_and_one_after_the_other_are_not():
    done = {"what": "committed", "job": JOB, "run": "b"}
    assert found(ONCE, told(began("a", JOB), began("b", JOB), done, over("a"), over("b")), max_hosts=2).doubled
    assert not found(ONCE, told(began("a", JOB), over("a"), began("b", JOB), done, over("b")), max_hosts=2).doubled


def test_two_artifacts_of_a_job_are_doubled_and_none_of_a_job_that_succeeded_is_a_loss():
    twice = [{"what": "committed", "job": JOB, "run": run} for run in ("a", "b")]
    assert found(ONCE, told(*twice)).doubled
    assert found(ONCE, told()).lost


def test_more_at_once_than_the_limits_allow_is_told():
    two = told(began("a", JOB), began("b", "tenants/acme/jobs/two"))
    assert found(ONCE, two, max_hosts=1).quota_violations
    assert found(ONCE, two, max_hosts=2, max_running={"acme": 1}).quota_violations
    assert not found(ONCE, two, max_hosts=2, max_running={"acme": 2}).quota_violations


def test_a_run_that_lives_without_a_place_is_an_orphan():
    assert found(ONCE, told({"what": "launched", "host": "a"})).orphans == ["a"]


@pytest.mark.parametrize("versions", [[1, 3], [1, 2, 2, 3], [1, 3, 2], [1, 2]])
def test_a_change_that_is_missed_doubled_or_out_of_order_is_a_gap(versions: list[int]):
    first = [("first", 1, "QUEUED")]
    assert checks.gaps("acme-0", first + [(JOB, version, "") for version in versions], {"first": 1, JOB: 3})
    assert not checks.gaps("acme-0", first + [(JOB, version, "") for version in (1, 2, 3)], {"first": 1, JOB: 3})


def test_one_that_ends_makes_room_for_one_that_begins_at_that_moment():
    assert history.most_at_once([Stay(job="", run="a", begin=0, end=1), Stay(job="", run="b", begin=1)]) == 1


def test_every_kind_of_fault_comes_up_whatever_the_seed():
    for seed in range(5):
        assert set(faults.sequence(50, seed)) == set(faults.WEIGHTS)
    assert list(faults.sequence(260, 1)) == list(faults.sequence(260, 1))
    assert 250 <= len(list(faults.sequence(260, 1))) <= 270


@pytest.fixture
async def backend(tmp_path: Path):
    """The simulated backend behind a socket; its runs find nobody to report to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    log = History(tmp_path / "history.jsonl")
    server = await lines.serve(port, Simulator(log, Reports(["127.0.0.1:1"], log, random.Random(0)), 0).answer)
    yield SimBackend(port)
    server.close()


def a_run(folder: Path) -> RunRequest:
    known = parse({"base_model": {"uri": "file:///base"}, "dataset": {"uri": "file:///data"}})
    style = Style(job=JOB, spec=known, output_uri=f"file://{folder}/out")
    manifest = RunManifest(run="run-1", attempt=1, pack=(style,), cache_uri="file:///c", report_address="", storage_dir="")
    (folder / "run.json").write_text(manifest.model_dump_json())
    return RunRequest(run_id="run-1", instance="ours", manifest_uri=f"file://{folder}/run.json", token="t")


async def test_the_simulated_backend_keeps_the_contract(backend: SimBackend, tmp_path: Path):
    run = a_run(tmp_path)
    ref = RunRef(run_id="run-1", handle=None)
    assert isinstance(await backend.observe(ref), Gone)
    assert await backend.launch(run) == await backend.launch(run)
    assert await backend.observe(ref) == Alive()
    assert [living.run_id for living in await backend.runs("ours")] == ["run-1"]
    assert await backend.runs("another") == []
    await backend.stop(ref)
    async with asyncio.timeout(10):
        while not isinstance(await backend.observe(ref), Gone):
            pass
    await backend.stop(ref)
    await backend.launch(run)
    assert isinstance(await backend.observe(ref), Gone), "gone is for ever"
    assert [piece async for piece in backend.logs(RunRef(run_id="run-2", handle=None))] == []
    kinds = [json.loads(line)["what"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert kinds.count("launched") == 1


async def test_a_simulated_backend_that_is_away_says_so():
    with pytest.raises(Unavailable):
        await SimBackend(1).observe(RunRef(run_id="run-1", handle=None))


def test_a_job_that_ends_of_what_only_the_operators_can_mend_is_lost():
    ended = replace(stored("QUEUED", "FAILED"), reasons={JOB: "STORE_CREDENTIALS_EXPIRED"})
    assert found(ended, told()).lost
    assert not found(replace(ended, reasons={JOB: "NAN_LOSS"}), told()).lost


HEALTHY = frozenset({"acme", "globex"})


def could_start(*rows: Row, num_hosts: int = 1) -> frozenset[str]:
    return starving.could_start(rows, num_hosts, 2, {"acme": 1, "globex": 1, "evil": 1}, HEALTHY)


def test_a_job_could_start_when_a_run_is_free_and_nothing_of_its_own_keeps_it():
    waits = Row(name=JOB, tenant="acme", state="QUEUED")
    assert could_start(waits, Row(name="other", tenant="globex", state="RUNNING")) == {JOB}
    assert not could_start(waits, num_hosts=2), "no run is free"
    assert not could_start(waits, Row(name="other", tenant="acme", state="STARTING")), "its tenant's quota is used up"
    assert not could_start(replace(waits, backs_off=True))
    assert not could_start(replace(waits, reason="STORE_CREDENTIALS_EXPIRED"))
    assert not could_start(replace(waits, tenant="evil")), "whose poison it is"


def looks(*waiting: str) -> list[Look]:
    return [Look(at_s=float(at), waiting=frozenset(names.split())) for at, names in enumerate(waiting)]


def test_a_job_that_could_have_started_for_longer_than_a_tick_is_starved_and_one_that_starts_in_between_is_not():
    assert len(starving.starved(starving.waits_s([looks("one", "one two", "one", "one")]), tick_s=2)) == 1
    assert not starving.starved(starving.waits_s([looks("one", "one", "two", "one", "one")]), tick_s=2)
    assert not starving.starved(starving.waits_s([looks("one", "one"), looks("one", "one")]), tick_s=2), "calms are apart"


async def test_every_kind_of_poisoned_base_is_unreadable_to_the_service_and_a_sound_one_is_not(tmp_path: Path):
    store, parser = Store(), Parser()
    assert await read_shapes(store, make_base(tmp_path / "sound"), parser, FAMILIES.get("sd1"))
    for kind in (*poison.KINDS, *poison.OWN_KINDS):
        with pytest.raises(LorafleetError):
            await read_shapes(store, poison.poisoned(tmp_path / kind, kind), parser, FAMILIES.get("sd1"))


@pytest.mark.parametrize("text", poison.BAD_SPECS)
def test_every_poisoned_spec_is_none(text: str):
    with pytest.raises((LorafleetError, TypeError, AttributeError, ValueError)):
        parse(json.loads(text))


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        (replica.STORE_AWAY, "STORE_UNREACHABLE"),
        (replica.CREDENTIALS_EXPIRED, "STORE_CREDENTIALS_EXPIRED"),
        (replica.DISK_FULL, "DISK_FULL"),
    ],
)
async def test_a_replicas_store_fails_as_told_and_only_while_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, reason: str
):
    for name in ("get", "get_range", "put", "put_if_absent", "delete", "exists", "is_empty"):  # put back afterwards
        monkeypatch.setattr(FileBacking, name, getattr(FileBacking, name))
    monkeypatch.setattr(file_store, "_written_beside", file_store._written_beside)
    replica._let_the_store_fail(tmp_path)
    store, uri = Store(), f"file://{tmp_path}/folder/object"
    (tmp_path / flag).touch()
    for write in (store.put, store.put_if_absent):
        with pytest.raises(Unavailable) as refused:
            await write(uri, b"bytes")
        assert refused.value.reason == reason
    (tmp_path / flag).unlink()
    await store.put(uri, b"bytes")
    assert await store.get(uri) == b"bytes"


def test_a_generation_that_has_succeeded_lacks_no_version_of_an_adapter():
    shelves = registry.Shelves(versions=[], moves={}, aliases={})
    states = {"tenants/acme/generations/foxes": "SUCCEEDED", "tenants/acme/jobs/fox": "SUCCEEDED"}
    assert registry.lost(shelves, states, {}) == ["tenants/acme/jobs/fox has SUCCEEDED and is no version"]
