"""What tests of the control plane do, in their own words: submit, run the loops, report as a driver would, look."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from lorafleet import spec, work
from lorafleet.contract import layout
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from service.backends.fake import FakeBackend
from service.core.clock import FakeClock
from service.core.resource_names import JobName, parse_job
from service.db import events, jobs
from service.db.database import Database
from service.db.models import JobRow, RunJobRow
from service.jobs.creation import NewJob
from service.jobs.jobs import Jobs
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.reconcile.admit import admit_once
from service.reconcile.context import Tools
from service.reconcile.copy_logs import copy_log_once
from service.reconcile.launch import launch_once
from service.reconcile.observe import observe_once
from service.reconcile.stop import notice_silence_once, stop_once
from service.runs.locations import RunLocations
from service.runs.reports import Reports
from service.runs.tokens import RunTokens
from service.runs.warm_workers import Warmth
from service.store.client import Store


@dataclass
class World:
    tools: Tools
    backend: FakeBackend
    clock: FakeClock
    folder: Path
    jobs: Jobs
    reports: Reports
    sequences: dict[str, int] = field(default_factory=dict)
    num_late: int = 0  # readings of bases that the loops went on without, as of the last look

    @classmethod
    async def create(cls, db: Database, backend: FakeBackend, clock: FakeClock, folder: Path) -> "World":
        async with db.snapshot() as tx:
            tokens = RunTokens((await events.service(tx)).run_token_key)
        (folder / "base").mkdir()
        (folder / "base" / "model_index.json").write_text("{}")
        (folder / "pictures").mkdir()
        (folder / "pictures" / "a.png").write_bytes(b"png")
        artifacts = f"file://{folder}/artifacts"
        locations = RunLocations(
            artifacts_uri=artifacts, cache_uri=f"{artifacts}/cache", ray_storage_uri=f"{folder}/runs", report_address="127.0.0.1:1"
        )
        store = Store()
        candidates = Candidates(Planner(ShapeCache(store, clock), Policy()))
        tools = Tools(db=db, backend=backend, store=store, tokens=tokens, locations=locations, candidates=candidates, up_since=clock.now())
        jobs = Jobs(db, tools.store, artifacts, tools.stop)
        warmth = Warmth(tokens=tokens, locations=locations, stop=tools.stop, retry=tools.retry)
        return cls(tools=tools, backend=backend, clock=clock, folder=folder, jobs=jobs, reports=Reports(db, warmth))

    def spec(self, **changes: Any) -> spec.Spec:
        fields = {"base_model": {"uri": f"file://{self.folder}/base"}, "dataset": {"uri": f"file://{self.folder}/pictures"}}
        return spec.parse({**fields, **changes})

    async def submit(self, job_id: str = "", **changes: Any) -> JobName:
        job = await self.jobs.create(NewJob(tenant="acme", job_id=job_id, request_id="", spec=self.spec(**changes)))
        return parse_job(job.name)

    async def job(self, name: JobName) -> pb.TrainingJob:
        return await self.jobs.get(name)

    async def state(self, name: JobName) -> str:
        return pb.JobState.Name((await self.job(name)).state).removeprefix("JOB_STATE_")

    async def settle(self) -> None:
        """Runs the loops until none finds work: what a second of a real server's life does."""
        while await self._work() or await self._read_bases():
            pass

    async def _work(self) -> bool:
        return await admit_once(self.tools) or await launch_once(self.tools) or await observe_once(self.tools) or await self._stop()

    async def _read_bases(self) -> bool:
        """Waits for what is read in the background, on however slow a machine; False when nothing is, and nothing was since last time."""
        shapes = self.tools.candidates.planner.shapes
        reading = [reading.task for reading in shapes._reading.values()]
        if reading:
            await asyncio.wait(reading, timeout=60)
        before, self.num_late = self.num_late, shapes.num_late
        return bool(reading) or before != shapes.num_late

    async def _stop(self) -> bool:
        await notice_silence_once(self.tools)
        return await stop_once(self.tools)

    async def copy_logs(self) -> None:
        while await copy_log_once(self.tools):
            pass

    async def started(self, job_id: str = "", **changes: Any) -> tuple[JobName, str]:
        """A submitted job and the id of its launched run."""
        name = await self.submit(job_id, **changes)
        await self.settle()
        return name, self.backend.launches[-1]

    async def running(self, job_id: str = "", **changes: Any) -> tuple[JobName, str]:
        """A job that trains."""
        name, run = await self.started(job_id, **changes)
        await self.report(run, progress(1))
        return name, run

    async def report(self, run: str, *happened: rpb.RunEvent, source: str = "driver", idle: bool = False) -> rpb.ReportResponse:
        """What a driver's next report does."""
        numbered = []
        for event in happened:
            self.sequences[run] = self.sequences.get(run, 0) + 1
            event.sequence = self.sequences[run]
            numbered.append(await self.placed(run, event))
        request = rpb.ReportRequest(run=run, source=source, events=numbered, idle=idle)
        return await self.reports.apply(self.tools.tokens.of(run, self.clock.now()), request)

    async def placed(self, run: str, event: rpb.RunEvent) -> rpb.RunEvent:
        """The event; an artifact that names no place lies where a trainer puts it."""
        artifact = event.ended.artifact
        if artifact.manifest_sha256 and not artifact.uri:
            async with self.tools.db.snapshot() as tx:
                query = select(JobRow).join(RunJobRow, RunJobRow.job_uid == JobRow.uid).where(RunJobRow.run_id == run)
                jobs = (await tx.session.scalars(query)).all()
            job = next((job for job in jobs if event.job in ("", job.name)), None)
            artifact.uri = "s3://none/adapter" if job is None else work.artifact_folder(job.kind, job.output_uri)
        return event

    async def commit_artifact(self, name: JobName) -> None:
        """What a trainer leaves in the store at its end."""
        async with self.tools.db.snapshot() as tx:
            row = await jobs.by_name(tx, name.tenant, name.job_id)
        assert row is not None
        folder = work.artifact_folder(row.kind, row.output_uri)
        await self.tools.store.put(layout.join(folder, layout.MANIFEST), b'{"format": "lorafleet-artifact-1", "files": {}}')

    def with_tools(self, **changes: Any) -> None:
        self.tools = replace(self.tools, **changes)


def progress(step: int, phase: str = "training", **fields: Any) -> rpb.RunEvent:
    return rpb.RunEvent(progress=pb.Progress(phase=phase, step=step, max_steps=100, **fields))


def resumed(step: int) -> rpb.RunEvent:
    return rpb.RunEvent(resumed=rpb.Resumed(step=step))


def succeeded(uri: str = "") -> rpb.RunEvent:
    """`uri`: where the artifact lies; without one `World.placed` says so."""
    artifact = pb.Artifact(uri=uri, manifest_sha256="ab" * 32)
    return rpb.RunEvent(ended=rpb.StyleEnded(outcome=rpb.STYLE_OUTCOME_SUCCEEDED, artifact=artifact))


def failed(reason: str, *, retryable: bool, message: str = "told") -> rpb.RunEvent:
    ended = rpb.StyleEnded(outcome=rpb.STYLE_OUTCOME_FAILED, reason=reason, message=message, retryable=retryable)
    return rpb.RunEvent(ended=ended)


def stopped() -> rpb.RunEvent:
    return rpb.RunEvent(ended=rpb.StyleEnded(outcome=rpb.STYLE_OUTCOME_STOPPED))
