"""A simulated run: trains nothing, reports as a driver does, writes checkpoints and artifacts, and sometimes dies.

As the trainer it begins its work only once its first report was taken, and ends itself when it is told that it is stale.
"""

import asyncio
import hashlib
import json
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.chaos.history import History
from lorafleet.contract.layout import JobLayout, join
from lorafleet.contract.run_manifest import RunManifest, Style, Task
from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import report_service_pb2_grpc as rpc
from lorafleet.v1 import training_service_pb2 as api
from lorafleet.work import TRAINING, artifact_folder, of

TICK_S = 0.5
CALL_S = 2.0
SILENT_S = 40.0  # a driver that reaches nobody for so long gives up
_REFUSED = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


class Refused(Exception):
    """Another run has taken its place."""


class Died(Exception):
    """As a process does: at once, without a word."""


class Reports:
    """The way to the replicas, which loses some reports and doubles others."""

    def __init__(self, addresses: Sequence[str], history: History, draw: random.Random) -> None:
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        self._stubs: list[Any] = [rpc.ReportServiceStub(grpc.aio.insecure_channel(address, options=options)) for address in addresses]
        self._history = history
        self._draw = draw

    async def send(self, request: pb.ReportRequest, token: str) -> pb.ReportResponse | None:
        """None when no answer came. Raises Refused."""
        fate = self._draw.random()
        if fate < 0.03:
            self._history.note("fault", kind="report_lost")
            return None
        stub = self._draw.choice(self._stubs)
        if fate < 0.06:
            self._history.note("fault", kind="answer_lost")
            await self._try(stub, request, token)
            return None
        if fate < 0.12:
            self._history.note("fault", kind="report_doubled")
            answers = await asyncio.gather(self._try(stub, request, token), self._try(self._draw.choice(self._stubs), request, token))
            return answers[0]
        return await self._try(stub, request, token)

    async def _try(self, stub: Any, request: pb.ReportRequest, token: str) -> pb.ReportResponse | None:
        try:
            return await stub.Report(request, metadata=(("authorization", f"Bearer {token}"),), timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSED:
                raise Refused(error.details()) from None
            return None


@dataclass
class Work:
    """One style, or one generation, in the making."""

    job: str
    root: str
    num_steps: int
    kind: str = TRAINING
    step: int = 0


class Driver:
    """One backend job: a run, and on warm workers those after it."""

    def __init__(
        self, host: str, manifest_uri: str, token: str, reports: Reports, history: History, draw: random.Random, written: list[str]
    ) -> None:
        self._host = host
        self._run = host
        self._manifest_uri = manifest_uri
        self._token = token
        self._reports = reports
        self._history = history
        self._draw = draw
        self._written = written
        self._source = f"driver-{secrets.token_hex(4)}"

    async def drive(self) -> str:
        """Why it ended. Raises Died."""
        try:
            while True:
                manifest = RunManifest.model_validate_json(_path(self._manifest_uri).read_bytes())
                await self._train(manifest)
                if manifest.warm_idle_s <= 0 or self._draw.random() < 0.3:
                    return "the driver exited with code 0"
                next_run = await self._rest()
                if next_run is None:
                    return "the warm workers were released"
                self._run, self._manifest_uri, self._token = next_run.run, next_run.manifest_uri, next_run.token
        except Refused as refused:
            return f"refused: {refused}"
        finally:
            self._history.note("run_over", host=self._host, run=self._run)

    async def _train(self, manifest: RunManifest) -> None:
        self._sequence, self._unacked = 0, list[pb.RunEvent]()
        first = pb.RunEvent(progress=api.Progress(phase="preparing"))
        await self._report(first)
        work = {style.job: self._begun(style) for style in manifest.pack}
        work |= {task.name: self._drawing(task, manifest.kind) for task in manifest.tasks}
        self._history.note("began", host=self._host, run=self._run, jobs=list(work))
        self._written.append(f"== run {self._run} ==\n")
        while work:
            await asyncio.sleep(TICK_S * self._draw.uniform(0.5, 1.5))
            self._maybe_die()
            events = [self._step(one) for one in work.values()]
            for event in events:
                if event.WhichOneof("event") == "ended":
                    self._leaves(work, event.job)
            answer = await self._report(*events)
            ended = [pb.RunEvent(job=job, ended=_STOPPED) for job in self._told_to_stop(answer, work)]
            for event in ended:
                self._leaves(work, event.job)
            if ended:
                await self._report(*ended)
            for joining in answer.joining:
                if joining.job not in work:
                    style = Style.model_validate_json(joining.style_json)
                    work[joining.job] = self._begun(style)
                    self._history.note("began", host=self._host, run=self._run, jobs=[joining.job])

    def _leaves(self, work: dict[str, Work], job: str) -> None:
        del work[job]
        self._history.note("left", host=self._host, run=self._run, job=job)  # before anybody hears of it

    async def _rest(self) -> pb.NextRun | None:
        """Idle until there is another run, or a release."""
        self._history.note("run_over", host=self._host, run=self._run)  # before anybody hears of it
        while True:
            answer = await self._report(idle=True)
            if answer.HasField("next_run"):
                return answer.next_run
            if any(directive.action == pb.DIRECTIVE_ACTION_RELEASE for directive in answer.directives):
                return None
            await asyncio.sleep(TICK_S)

    def _begun(self, style: Style) -> Work:
        return Work(job=style.job, root=style.output_uri, num_steps=self._draw.randint(3, 12))

    def _drawing(self, task: Task, kind: str) -> Work:
        return Work(job=task.name, root=task.output_uri, num_steps=self._draw.randint(3, 12), kind=kind)

    def _step(self, work: Work) -> pb.RunEvent:
        """One more step, or the end."""
        work.step += 1
        job = work.job
        self._written.append(f"[{job}] step {work.step}\n")
        if work.step >= work.num_steps:
            return pb.RunEvent(job=job, ended=self._end(work))
        if work.step % 3 == 0:
            _write(join(JobLayout(work.root).checkpoint(work.step), "manifest.json"), b"{}")
        return pb.RunEvent(job=job, progress=api.Progress(phase=of(work.kind).phase, step=work.step, max_steps=work.num_steps))

    def _end(self, work: Work) -> pb.StyleEnded:
        fate = self._draw.random()
        if fate < 0.05:
            return pb.StyleEnded(outcome=pb.STYLE_OUTCOME_FAILED, reason="NAN_LOSS", message="the loss is not a number", step=work.step)
        if fate < 0.15:
            told = {"reason": "DATA_UNREADABLE", "message": "the store was away", "retryable": True}
            return pb.StyleEnded(outcome=pb.STYLE_OUTCOME_FAILED, step=work.step, **told)
        folder = artifact_folder(work.kind, work.root)
        manifest = json.dumps({"format": "lorafleet-artifact-1", "files": {}, "run": self._run}).encode()
        self._history.note("committed", host=self._host, run=self._run, job=work.job)
        _write(join(folder, "manifest.json"), manifest)
        if fate > 0.95:
            raise Died("killed after the artifact was committed, before it was reported")
        artifact = api.Artifact(uri=folder, manifest_sha256=hashlib.sha256(manifest).hexdigest())
        return pb.StyleEnded(outcome=pb.STYLE_OUTCOME_SUCCEEDED, artifact=artifact, step=work.step)

    def _maybe_die(self) -> None:
        if self._draw.random() < 0.01:
            self._history.note("fault", kind="driver_death")
            raise Died("killed")

    @staticmethod
    def _told_to_stop(answer: pb.ReportResponse, work: dict[str, Work]) -> list[str]:
        stops = [directive for directive in answer.directives if directive.action == pb.DIRECTIVE_ACTION_STOP]
        return [job for job in work if any(directive.job in {"", job} for directive in stops)]

    async def _report(self, *events: pb.RunEvent, idle: bool = False) -> pb.ReportResponse:
        """Until it is answered; what is not acknowledged is sent again, with its sequence."""
        for event in events:
            self._sequence += 1
            event.sequence = self._sequence
        self._unacked += events
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SILENT_S
        while loop.time() < deadline:
            request = pb.ReportRequest(run=self._run, source=self._source, events=self._unacked, idle=idle)
            answer = await self._reports.send(request, self._token)
            if answer is not None:
                self._unacked = [event for event in self._unacked if event.sequence > answer.acked_sequence]
                if not self._unacked:
                    return answer
            await asyncio.sleep(0.2)
        raise Died(f"nobody took a report for {SILENT_S:.0f} s")


_STOPPED = pb.StyleEnded(outcome=pb.STYLE_OUTCOME_STOPPED)


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _write(uri: str, data: bytes) -> None:
    path = _path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.replace(path)
