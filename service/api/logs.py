"""StreamTrainingJobLogs: from the backend while a run lives, from the store once its log is copied whole."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from lorafleet.errors import NotFound, Unavailable
from lorafleet.layout import JobLayout
from lorafleet.v1 import training_service_pb2 as pb
from service.backends.base import Backend, RunRef
from service.bell import heard
from service.control.runs import RunState
from service.db import attempts, jobs
from service.db.database import Database
from service.db.models import JobRow, RunLogRow
from service.db.tenants import store_credentials_of
from service.names import JobName, parse_job
from service.resources import JobRun
from service.run_log import of_job
from service.storage import Store

POLL_S = 1.0
PIECE_BYTES = 256 * 1024  # well below gRPC's 4 MiB


@dataclass(frozen=True)
class Source:
    """One attempt's log. `whole`: the store has all that there will ever be."""

    job: str
    run: JobRun
    uri: str
    whole: bool

    @property
    def attempt(self) -> int:
        return self.run.member.attempt


@dataclass
class LogStream:
    """One reader of one job's logs."""

    db: Database
    backend: Backend
    store: Store
    stopping: asyncio.Event
    sent_bytes: dict[int, int] = field(default_factory=dict)  # by attempt

    async def pieces(self, name: JobName, *, attempt: int, follow: bool) -> AsyncIterator[pb.StreamTrainingJobLogsResponse]:
        """Raises NotFound; Unavailable when the server stops."""
        while True:
            ring = self.db.bell.listen()
            job, sources = await self._sources(name, attempt)
            if attempt and not sources and (jobs.value(job).finished or not follow):
                raise NotFound(f"{name} has no attempt {attempt}", reason="ATTEMPT_NOT_FOUND")
            for source in sources:
                async for piece in self._new(source, to_the_end=source.whole or not follow):
                    yield piece
            if not follow or (jobs.value(job).finished and all(source.whole for source in sources)):
                return
            if self.stopping.is_set():
                raise Unavailable("the server is stopping; try again", reason="SERVER_STOPPING")
            await heard(ring, POLL_S)

    async def _sources(self, name: JobName, attempt: int) -> tuple[JobRow, list[Source]]:
        async with self.db.snapshot() as tx:
            job = await jobs.by_name(tx, name.tenant, name.job_id)
            if job is None:
                raise NotFound(f"there is no job {name}", reason="JOB_NOT_FOUND")
            runs = (await attempts.of_jobs(tx, [job.uid]))[job.uid]
            copies = {run.run.id: await tx.session.get(RunLogRow, run.run.id) for run in runs}
        layout = JobLayout(job.output_uri)
        return job, [
            Source(job=job.name, run=run, uri=layout.log(run.member.attempt), whole=_whole(run, copies[run.run.id]))
            for run in runs
            if attempt in {0, run.member.attempt}
        ]

    async def _new(self, source: Source, *, to_the_end: bool) -> AsyncIterator[pb.StreamTrainingJobLogsResponse]:
        start = self.sent_bytes.get(source.attempt, 0)
        text = (await self._text(source))[start:]
        if not to_the_end:
            text = text[: text.rfind(b"\n") + 1]  # whole lines while more may come
        self.sent_bytes[source.attempt] = start + len(text)
        for piece in _pieces(text):
            yield pb.StreamTrainingJobLogsResponse(attempt=source.attempt, text=piece.decode(errors="replace"))

    async def _text(self, source: Source) -> bytes:
        if not source.whole:
            try:
                run = source.run.run
                if text := b"".join([piece async for piece in self.backend.logs(RunRef(run_id=run.host_id, handle=run.handle))]):
                    return await asyncio.to_thread(of_job, text, job=source.job, run=run.id, host=run.host_id)
            except Unavailable:
                pass  # the store has what was copied so far
        store = self.store.of(await store_credentials_of(self.db, parse_job(source.job).tenant))
        return await store.get(source.uri) or b""


def _whole(run: JobRun, copy: RunLogRow | None) -> bool:
    """A run that was never launched has no log, and gets none once it is gone."""
    return run.run.state == RunState.GONE.value if copy is None else copy.complete


def _pieces(text: bytes) -> Iterator[bytes]:
    """Pieces of whole lines, as far as a line fits into one."""
    while text:
        cut = text.rfind(b"\n", 0, PIECE_BYTES) + 1 if len(text) > PIECE_BYTES else len(text)
        yield text[: cut or PIECE_BYTES]
        text = text[cut or PIECE_BYTES :]
