"""Serves StreamTrainingJobLogs: from the backend while a run lives, from the store once its log is copied whole."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import NotFound, Unavailable
from lorafleet.v1 import training_service_pb2 as pb
from service.backends.base import Backend, RunRef
from service.backends.run_log import Line, RunLines, of_job
from service.control.runs import RunState
from service.core.resource_names import JobName, parse_job
from service.core.wakeups import heard
from service.db import attempts, jobs
from service.db.attempts import JobRun
from service.db.database import Database
from service.db.models import JobRow, RunLogRow
from service.db.tenants import store_credentials_of
from service.jobs.jobs import not_found
from service.store import job_logs
from service.store.client import Store

POLL_S = 1.0
READ_AGAIN_BYTES_PER_S = 100e6  # backends pass over what was read before, which takes time: long logs less often
MAX_PAUSE_S = 10.0
PIECE_BYTES = 256 * 1024  # well below gRPC's 4 MiB


@dataclass(frozen=True)
class LogSource:
    """One attempt's log. `whole`: the store has all that there will ever be."""

    job: str
    run: JobRun
    layout: JobLayout
    whole: bool

    @property
    def attempt(self) -> int:
        return self.run.member.attempt


@dataclass
class Tail:
    """How much of one attempt's log a reader has."""

    lines: RunLines  # of the backend's log
    found_bytes: int = 0  # of the job's own text, in `lines`
    sent_bytes: int = 0  # of that text, from wherever it came
    has_begun: bool = False  # the backend has something

    def unsent(self, lines: Sequence[Line], job: str) -> bytes:
        """The job's own text in the next of `lines`, without what the store had before."""
        text = of_job(lines, job)
        new = text[max(0, self.sent_bytes - self.found_bytes) :]
        self.found_bytes += len(text)
        self.sent_bytes += len(new)
        return new


@dataclass
class LogStream:
    """One reader of one job's logs."""

    db: Database
    backend: Backend
    store: Store
    stopping: asyncio.Event
    tails: dict[int, Tail] = field(default_factory=dict)  # by attempt

    async def pieces(self, name: JobName, *, attempt: int, follow: bool) -> AsyncGenerator[pb.StreamTrainingJobLogsResponse]:
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
            await asyncio.sleep(min(MAX_PAUSE_S, sum(tail.lines.read_bytes for tail in self.tails.values()) / READ_AGAIN_BYTES_PER_S))
            await heard(ring, POLL_S)

    async def _sources(self, name: JobName, attempt: int) -> tuple[JobRow, list[LogSource]]:
        async with self.db.snapshot() as tx:
            job = await jobs.by_name(tx, name.tenant, name.job_id)
            if job is None:
                raise not_found(name)
            runs = (await attempts.of_jobs(tx, [job.uid]))[job.uid]
            copies = {run.run.id: await tx.session.get(RunLogRow, run.run.id) for run in runs}
        layout = JobLayout(job.output_uri)
        return job, [
            LogSource(job=job.name, run=run, layout=layout, whole=_whole(run, copies[run.run.id]))
            for run in runs
            if attempt in {0, run.member.attempt}
        ]

    async def _new(self, source: LogSource, *, to_the_end: bool) -> AsyncIterator[pb.StreamTrainingJobLogsResponse]:
        """What was not sent yet; while more may come, whole lines of it."""
        tail = self.tails.setdefault(source.attempt, Tail(RunLines(source.run.run.id, source.run.run.host_id)))
        async with aclosing(_pieces(self._texts(source, tail, to_the_end=to_the_end))) as pieces:
            async for piece in pieces:
                yield pb.StreamTrainingJobLogsResponse(attempt=source.attempt, text=piece.decode(errors="replace"))

    async def _texts(self, source: LogSource, tail: Tail, *, to_the_end: bool) -> AsyncGenerator[bytes, None]:
        if not source.whole:
            with suppress(Unavailable):  # the store has what was copied so far
                async with aclosing(self._live(source, tail)) as texts:
                    async for text in texts:
                        yield text
                if tail.has_begun:
                    if to_the_end:
                        yield tail.unsent(tail.lines.unfinished(), source.job)
                    return
        store = self.store.of(await store_credentials_of(self.db, parse_job(source.job).tenant))
        async with aclosing(job_logs.read(store, source.layout, source.attempt, tail.sent_bytes)) as pieces:
            async for piece in pieces:
                tail.sent_bytes += len(piece)
                yield piece

    async def _live(self, source: LogSource, tail: Tail) -> AsyncGenerator[bytes, None]:
        run = source.run.run
        tail.lines.again()
        async with aclosing(self.backend.logs(RunRef(run_id=run.host_id, handle=run.handle), tail.lines.read_bytes)) as pieces:
            async for piece in pieces:
                tail.has_begun = True
                yield tail.unsent(tail.lines.feed(piece), source.job)


def _whole(run: JobRun, copy: RunLogRow | None) -> bool:
    """A run that was never launched has no log, and gets none once it is gone."""
    return run.run.state == RunState.GONE.value if copy is None else copy.complete


async def _pieces(texts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Pieces that fit a message, of whole lines as far as a line fits into one."""
    text = b""
    async with aclosing(texts):
        async for more in texts:
            text += more
            while len(text) > PIECE_BYTES:
                cut = text.rfind(b"\n", 0, PIECE_BYTES) + 1 or PIECE_BYTES
                yield text[:cut]
                text = text[cut:]
    if text:
        yield text
