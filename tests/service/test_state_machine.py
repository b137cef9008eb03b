"""The API, driven at random against a small independent model, with deaths, silence, restarts and compaction in between."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, rule, run_state_machine_as_test

from lorafleet import spec_proto
from lorafleet.errors import AlreadyExists, FailedPrecondition, TokenExpired
from lorafleet.spec import Spec
from lorafleet.v1 import batch_service_pb2 as bpb
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.work.generation import parse
from service.api.watch import jobs as watching
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import Scope
from service.backends.fake import FakeBackend
from service.control.admission import Limits
from service.control.packing import PackLimits
from service.core.clock import FakeClock
from service.core.resource_names import BatchName, JobName, parse_generation, parse_job
from service.core.wakeups import Bell
from service.db import events
from service.db.database import Database
from service.db.engines import sqlite_url
from service.generations.creation import Generations, NewGeneration
from service.jobs.batch_specs import NewBatch
from service.jobs.batches import Batches
from service.jobs.creation import NewJob
from service.jobs.messages import job_event
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.reconcile.orphans import end_orphans_once
from tests.service.conftest import TEMPLATE
from tests.service.engines import engine_at
from tests.service.model import Model, ModelJob
from tests.service.registry_rules import ADAPTER, RegistryRules, trained
from tests.service.world import World, failed, progress, stopped

MAX_RUNS = 3
STEPS = int(os.environ.get("LORAFLEET_STATE_MACHINE_STEPS", "30"))
EXAMPLES = int(os.environ.get("LORAFLEET_STATE_MACHINE_EXAMPLES", "6"))
WORDS: dict[str, Callable[[], rpb.RunEvent]] = {
    "SUCCEEDED": trained,
    "FAILED": lambda: failed("NAN_LOSS", retryable=False),
    "RETRYABLE": lambda: failed("STORE_AWAY", retryable=True),
    "STOPPED": stopped,
}
MODEL_STATES = {"ADMITTED": "STARTING"}
MakeUrl = Callable[[], str]


KINDS = {"training": ("training_job", "jobs"), "generation": ("generation", "generations")}  # what a watch shows, and its collection


def named(name: str) -> JobName:
    return parse_generation(name) if "/generations/" in name else parse_job(name)


class ControlPlane(RegistryRules):
    """One control plane on an empty database; jobs train alone, at most three at once."""

    make_url: MakeUrl
    jobs = Bundle("jobs")
    batches = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="lorafleet-machine-"))
        self.clock, self.backend, self.model = FakeClock(), FakeBackend(), Model(MAX_RUNS)
        self.url = type(self).make_url()
        self.requests: dict[str, tuple[str, str]] = {}  # body and job, by request id
        self.last_report: dict[str, rpb.ReportRequest] = {}
        self.sequences: dict[str, int] = {}
        self.tokens, self.versions = dict.fromkeys(KINDS, ""), dict[str, int]()
        self.num_batches = 0
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _open(self) -> None:
        self.db = Database(engine_at(self.url), self.clock, Bell(), job_event)
        self.world = await World.create(self.db, self.backend, self.clock, self.folder)
        tools = self.world.tools
        policy = replace(Policy(), limits=PackLimits(max_pack_size=1), num_free_runs=MAX_RUNS)
        candidates = Candidates(Planner(tools.candidates.planner.shapes, policy))
        self.world.with_tools(limits=Limits(max_running_runs=MAX_RUNS), candidates=candidates, up_since=self.clock.now())
        self.generations = Generations(self.db, tools.store, tools.locations.artifacts_uri)
        self.batch_api = Batches(self.db, tools.store, tools.locations.artifacts_uri, tools.stop)

    @rule(target=jobs, request=st.integers(0, 5), job_id=st.sampled_from(["", "fox", "owl"]), rank=st.sampled_from([4, 8]))
    def create(self, request: int, job_id: str, rank: int) -> str:
        body, request_id = f"{job_id} {rank}", str(UUID(int=request + 1)) if request else ""
        known = self.requests.get(request_id)
        new = NewJob(tenant="acme", job_id=job_id, request_id=request_id, spec=self._spec(adapter={"rank": rank}))
        if known is not None and known[0] != body:
            self._refused(new, "REQUEST_ID_REUSED")
            return known[1]
        if known is None and f"tenants/acme/jobs/{job_id}" in self.model.jobs:
            self._refused(new, "JOB_ID_TAKEN")
            return f"tenants/acme/jobs/{job_id}"
        name = self.run(self.world.jobs.create(new)).name
        if known is not None:
            assert known == (body, name), "a repeated request answers its job"
            return name
        assert name not in self.model.jobs
        if request_id:
            self.requests[request_id] = (body, name)
        self._accept(name)
        return name

    def _spec(self, **changes: Any) -> Spec:
        return self.world.spec(output={"adapter": ADAPTER.adapter_id}, **changes)

    def _refused(self, new: NewJob, reason: str) -> None:
        with pytest.raises(AlreadyExists) as refused:
            self.run(self.world.jobs.create(new))
        assert refused.value.reason == reason

    @rule(target=jobs, own_id=st.sampled_from(["", "", "fox"]), seed=st.integers(0, 5))
    def draw(self, own_id: str, seed: int) -> str:
        """A generation lives as a job does, and may have a job's id."""
        spec = parse({"base_model": {"uri": f"file://{self.folder}/base"}, "prompts": ["a fox"], "seeds": [seed]})
        new = NewGeneration(tenant="acme", job_id=f"generations/{own_id}" if own_id else "", request_id="", spec=spec)
        if f"tenants/acme/generations/{own_id}" in self.model.jobs:
            with pytest.raises(AlreadyExists):
                self.run(self.generations.create(new))
            return f"tenants/acme/generations/{own_id}"
        name = self.run(self.generations.create(new)).name
        self._accept(name)
        return name

    @rule(target=batches, size=st.integers(1, 3))
    def create_batch(self, size: int) -> str:
        self.num_batches += 1
        batch = f"batch-{self.num_batches}"
        defaults = spec_proto.fields(spec_proto.to_proto(self._spec()))
        new = NewBatch(tenant="acme", batch_id=batch, request_id="", defaults=defaults, items=[bpb.BatchItem() for _ in range(size)])
        assert self.run(self.batch_api.create(new)).num_jobs == size
        for index in range(size):
            self._accept(f"tenants/acme/jobs/{batch}-{index:05d}", batch)
        return batch

    def _accept(self, name: str, batch: str = "") -> None:
        self.model.jobs[name] = ModelJob(batch=batch)

    @rule(name=jobs)
    def cancel(self, name: str) -> None:
        if self.model.cancel(name):
            self.run(self.world.jobs.cancel(named(name)))
            return
        with pytest.raises(FailedPrecondition) as refused:
            self.run(self.world.jobs.cancel(named(name)))
        assert refused.value.reason == "JOB_FINISHED"

    @rule(batch=batches)
    def cancel_batch(self, batch: str) -> None:
        for name, job in self.model.jobs.items():
            if job.batch == batch:
                self.model.cancel(name)
        self.run(self.batch_api.cancel(BatchName("acme", batch)))

    @rule(batch=batches)
    def retry_failed(self, batch: str) -> None:
        self.model.retry(batch)
        self.run(self.batch_api.retry_failed(BatchName("acme", batch)))

    @rule(seconds=st.sampled_from([0.0, 0.0, 5.0, 20.0, 61.0, 130.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        """The loops do all that they find to do. A second more: nothing is observed twice within one."""
        self.clock.advance(seconds + 1.5)
        self.model.now += seconds + 1.5
        self.model.time_passes()
        startable, num_free = self.model.startable(), self.model.num_free()
        before = len(self.backend.launches)
        self.run(self.world.settle())
        fresh = self.backend.launches[before:]
        assert len(fresh) == min(len(startable), num_free), "as many start as there is room for"
        for run in fresh:
            name = self._job_of(run)
            assert name in startable, f"{name} was not to start"
            startable.discard(name)
            self.model.starts(name, run)

    def _job_of(self, run: str) -> str:
        page = self.run(self._all_jobs())
        [name] = [job.name for job in page if any(attempt.run == run for attempt in job.attempts)]
        return name

    async def _all_jobs(self) -> list[pb.TrainingJob]:
        return [await self.world.jobs.get(named(name)) for name in self.model.jobs]

    @rule(place=st.integers(0, 100), word=st.sampled_from(["", "", *WORDS]))
    def report(self, place: int, word: str) -> None:
        if not self.model.runs:
            return
        self._reports(sorted(self.model.runs)[place % len(self.model.runs)], word)

    @rule()
    def a_run_succeeds(self) -> None:
        """Of a new job where none is at work: few come so far by chance alone."""
        if not self._at_work():
            self.create(0, "", 4)
            self.time_passes(20.0)
        for run in self._at_work()[:1]:
            self._reports(run, "SUCCEEDED")

    def _at_work(self) -> list[str]:
        return [name for name, run in sorted(self.model.runs.items()) if run.alive and not run.gone and not run.word]

    def _reports(self, run: str, word: str) -> None:
        self.sequences[run] = self.sequences.get(run, 0) + 1
        event = self.run(self.world.placed(run, WORDS[word]() if word else self._progress(run)))
        event.sequence = self.sequences[run]
        request = rpb.ReportRequest(run=run, source="driver", events=[event])
        if self.model.runs[run].gone:
            with pytest.raises(FailedPrecondition) as refused:
                self._send(request)
            assert refused.value.reason == "STALE_ATTEMPT"
            return
        self.last_report[run] = request
        self._send(request)
        before = self.model.jobs[self.model.runs[run].job].state
        self.model.says(run, word) if word else self.model.trains(run)
        self.model.let_go(run)
        name = self.model.runs[run].job
        if "SUCCEEDED" == self.model.jobs[name].state != before and "/generations/" not in name:
            self.registers(name)

    def _progress(self, run: str) -> rpb.RunEvent:
        is_drawn = "/generations/" in self.model.runs[run].job
        return progress(self.sequences[run], "drawing" if is_drawn else "training")

    @rule(place=st.integers(0, 100))
    def report_again(self, place: int) -> None:
        """A doubled report: heard, and nothing else."""
        live = [run for run in sorted(self.last_report) if not self.model.runs[run].gone]
        if not live:
            return
        run = live[place % len(live)]
        before = [job.etag for job in self.run(self._all_jobs())]
        self._send(self.last_report[run])
        assert [job.etag for job in self.run(self._all_jobs())] == before
        self.model.runs[run].heard_at = self.model.now
        self.model.let_go(run)

    def _send(self, request: rpb.ReportRequest) -> None:
        self.run(self.world.reports.apply(self.world.tools.tokens.of(request.run, self.world.clock.now()), request))

    @rule(place=st.integers(0, 100))
    def run_dies(self, place: int) -> None:
        live = [run for run in sorted(self.model.runs) if self.model.runs[run].alive]
        if live:
            self.backend.end(live[place % len(live)])
            self.model.runs[live[place % len(live)]].alive = False

    @rule()
    def restart(self) -> None:
        """Another process on the same database: what was only in memory is lost."""
        self.run(self.db.close())
        shutil.rmtree(self.folder / "base")
        shutil.rmtree(self.folder / "pictures")
        self.run(self._open())
        self.model.up_since = self.model.now

    @rule()
    def compact(self) -> None:
        async def compact() -> None:
            async with self.db.transaction() as tx:
                await events.compact(tx, tx.now)

        self.run(compact())

    @rule()
    def look_for_orphans(self) -> None:
        before = list(self.backend.alive)
        self.run(end_orphans_once(self.world.tools))
        assert self.backend.alive == before, "there are none"

    @invariant()
    def every_job_is_as_the_model_says(self) -> None:
        for job in self.run(self._all_jobs()):
            modelled = self.model.jobs[job.name]
            state = pb.JobState.Name(job.state).removeprefix("JOB_STATE_")
            assert MODEL_STATES.get(state, state) == modelled.state, job.name
            assert len(job.attempts) == modelled.attempts
        assert len(self.backend.alive) <= MAX_RUNS

    @rule()
    def watch(self) -> None:
        """All that happened since the last look: every version once and in order, or a snapshot when it is too long ago."""
        for kind, (field, collection) in KINDS.items():
            self._watch(kind, field, {name for name in self.model.jobs if f"/{collection}/" in name})

    def _watch(self, kind: str, field: str, there: set[str]) -> None:
        try:
            found = self.run(self._news(kind, field, self.tokens[kind], len(there)))
        except TokenExpired:
            for name in there:
                self.versions.pop(name, None)
            found = self.run(self._news(kind, field, "", len(there)))
        for event in found:
            if event.HasField(field):
                job = getattr(event, field)
                version = int(job.etag.strip('"').rpartition("-")[2])
                assert event.snapshot or version == self.versions.get(job.name, 0) + 1, job.name
                self.versions[job.name] = version
            self.tokens[kind] = event.resume_token
        assert there <= self.versions.keys() <= self.model.jobs.keys()

    async def _news(self, kind: str, field: str, token: str, num_there: int) -> list[Any]:
        watch = Watch(db=self.db, scope=Scope(tenant="acme", kind=kind), feed=Feed(self.db, asyncio.Event()))
        found: list[Any] = []
        async with aclosing(watch.moments(token)) as moments:
            async for moment in moments:
                found += moment
                if not moment[0].HasField(field) and not (not token and len(found) == num_there):
                    break
        return found

    def teardown(self) -> None:
        self.run(self.db.close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.001)
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.001)


def drive(make: MakeUrl) -> None:
    class Machine(ControlPlane):
        make_url = staticmethod(make)

    Machine.__qualname__ = Machine.__name__ = "ControlPlane"
    chosen = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    run_state_machine_as_test(Machine, settings=chosen)


def test_the_api_does_what_the_model_says_on_sqlite(empty_database: Path, tmp_path: Path):
    numbers = iter(range(100_000))
    drive(lambda: sqlite_url(Path(shutil.copy(empty_database, tmp_path / f"{next(numbers)}.db"))))


@pytest.mark.postgresql
def test_the_api_does_what_the_model_says_on_postgresql(request: pytest.FixtureRequest):
    server = request.getfixturevalue("postgres")
    names: list[str] = []

    def make() -> str:
        if names:
            server.drop(names[-1])
        names.append(f"machine_{len(names)}")
        return server.create(names[-1], TEMPLATE)

    drive(make)
