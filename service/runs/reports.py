"""Applies reports of runs, once and in order; the response carries directives. One transaction per report."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from lorafleet import spec, work
from lorafleet.contract.run_manifest import Style
from lorafleet.control_characters import uncoloured
from lorafleet.errors import FailedPrecondition, InvalidInput
from lorafleet.redacting import without_passwords
from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as api
from service.control import lifecycle
from service.control.lifecycle import Artifact, Ending, JobState, Outcome
from service.control.runs import COMING, RunState
from service.core.telemetry import measure
from service.db import hosts, jobs, row_faults, runs
from service.db.database import Database
from service.db.models import ReportSourceRow, RunRow
from service.db.runs import PackMember
from service.db.transaction import Transaction
from service.runs.progress import progress_of
from service.runs.warm_workers import ENDED, Warmth, begin
from service.store.uri_prefixes import lies_in

NEXT_REPORT_S = 2.0
NEXT_REPORT_STOPPING_S = 1.0
MAX_TEXT = 8000  # characters
MAX_URI = 300  # characters of one in a message

log = logging.getLogger(__name__)


class Reports:
    """Applies the reports of runs."""

    def __init__(self, db: Database, warmth: Warmth) -> None:
        self._db = db
        self._warmth = warmth
        self._tokens = warmth.tokens
        self._policy = warmth.stop

    async def apply(self, token: str, request: pb.ReportRequest) -> pb.ReportResponse:
        """Raises Unauthenticated, and FailedPrecondition (STALE_ATTEMPT) for a run that another has replaced."""
        newer = self._tokens.check(request.run, token, min(self._db.clock.now(), self._db.even_now()))  # not aged by a clock that was set
        answer = await self._answer(request)
        answer.token = newer
        return answer

    async def _answer(self, request: pb.ReportRequest) -> pb.ReportResponse:
        async with self._db.transaction() as tx:
            run = await _live_run(tx, request.run)
            if run.state == RunState.GONE.value:  # its process has begun another run: late reports of this one are ignored
                return pb.ReportResponse(acked_sequence=_last_sequence(request), next_report_s=NEXT_REPORT_S)
            pack = await runs.lock_members(tx, run.id)
            await self._heard(tx, run, pack)
            source = await _source(tx, run.id, request.source)
            for event in request.events:
                if event.sequence > source.last_sequence:
                    _apply(tx, event, pack)
                    source.last_sequence = event.sequence
            if request.idle:
                await self._warmth.rest(tx, run, pack)
            if run.state == RunState.IDLE.value:
                return await self._warmth.answer(tx, run, source.last_sequence)
            self._let_go(tx, run, pack)
            return _answer(source.last_sequence, pack)

    async def _heard(self, tx: Transaction, run: RunRow, pack: list[PackMember]) -> None:
        if run.state in COMING:  # it was launched, although that is not recorded yet
            runs.mark_launched(tx, run)
            await begin(tx, run)
            for member in pack:
                jobs.save(tx, member.job, lifecycle.launched(jobs.value(member.job), tx.now))
        run.report_time = tx.now

    def _let_go(self, tx: Transaction, run: RunRow, pack: list[PackMember]) -> None:
        if run.standby is not None:  # its workers come up
            return
        if all(member.place.outcome is not None or member.place.joining or jobs.value(member.job).finished for member in pack):
            at = tx.now + timedelta(seconds=self._policy.linger_s)
            runs.stop_from(run, at, ENDED, "every job of the run has ended, and the run did not go")
        elif run.stop_reason == ENDED:  # a joiner was taken in at the last moment
            run.stop_at, run.stop_reason, run.stop_message = None, "", ""


async def _live_run(tx: Transaction, run_id: str) -> RunRow:
    run = await runs.lock(tx, run_id)
    if run is None or (run.state == RunState.GONE.value and not await hosts.is_alive(tx, run.host_id)):
        raise FailedPrecondition("this run is over or was replaced; stop", reason="STALE_ATTEMPT")
    return run


def _last_sequence(request: pb.ReportRequest) -> int:
    return max((event.sequence for event in request.events), default=0)


async def _source(tx: Transaction, run_id: str, name: str) -> ReportSourceRow:
    if not 1 <= len(name) <= 200 or "\x00" in name:
        raise InvalidInput("source is not 1 to 200 characters without NUL")
    source = await tx.session.get(ReportSourceRow, (run_id, name))
    if source is None:
        source = ReportSourceRow(run_id=run_id, source=name, last_sequence=0)
        tx.session.add(source)
    return source


def _apply(tx: Transaction, event: pb.RunEvent, pack: list[PackMember]) -> None:
    about = [member for member in pack if event.job == member.job.name or (not event.job and not member.place.joining)]
    if not about:
        raise InvalidInput(f'event {event.sequence}: "{event.job}" is not a job of this run')
    at = _time(event, tx.now)
    measure("lorafleet_report_lag_seconds", max(0.0, (tx.now - at).total_seconds()))
    for member in about:
        _acknowledge(tx, member)
        match event.WhichOneof("event"):
            case "progress":
                _progress(tx, member, event.progress, min(at, tx.now))
            case "resumed":
                member.place.resumed_from_step = event.resumed.step
                tx.show(member.job)
            case "ended":
                _ended(tx, member, event.ended)
            case _:
                continue  # from a newer trainer


def _time(event: pb.RunEvent, now: datetime) -> datetime:
    """The event's time by the run's clock, which may be wrong."""
    try:
        return event.time.ToDatetime(now.tzinfo) if event.HasField("time") else now
    except (ValueError, OverflowError):
        return now


def _acknowledge(tx: Transaction, member: PackMember) -> None:
    """The run reports on a style that was to join it, so it has joined."""
    if member.place.joining and member.place.outcome is None:
        member.place.joining = False
        jobs.save(tx, member.job, lifecycle.launched(jobs.value(member.job), tx.now))


def _progress(tx: Transaction, member: PackMember, progress: api.Progress, at: datetime) -> None:
    job = jobs.value(member.job)
    if job.finished or member.place.outcome is not None:  # this run has already reported its end
        return
    member.job.progress = _merged(member.job.progress, progress).SerializeToString()
    if progress.phase == work.of(member.job.kind).phase and progress.step >= 1:
        jobs.save(tx, member.job, lifecycle.trained(job, at))
    tx.show(member.job)


def _merged(before: bytes | None, progress: api.Progress) -> api.Progress:
    """The newest progress. Fields left unset have not changed and are kept."""
    merged = api.Progress()
    merged.CopyFrom(progress)
    old = progress_of(before)
    for name in ("held_out_loss_base", "held_out_loss", "checkpoint_step"):
        if old.HasField(name) and not merged.HasField(name):
            setattr(merged, name, getattr(old, name))
    return merged


def _ended(tx: Transaction, member: PackMember, ended: pb.StyleEnded) -> None:
    ending = _ending(ended)
    _check_place(member, ending.artifact)
    place = member.place
    if place.outcome is not None:  # the first report of an end counts
        return
    place.outcome = ending.outcome.value
    place.reason, place.message, place.retryable = ending.reason or ending.outcome.value, ending.message, ending.retryable
    jobs.save(tx, member.job, lifecycle.style_ended(jobs.value(member.job), ending, tx.now))
    tx.touch(member.job)
    log.info("%s ended: %s %s", member.job.name, ending.outcome, ending.reason)


def _ending(ended: pb.StyleEnded) -> Ending:
    number = pb.StyleOutcome.DESCRIPTOR.values_by_number.get(ended.outcome)
    name = "" if number is None else number.name.removeprefix("STYLE_OUTCOME_")
    if name not in Outcome.__members__:
        raise InvalidInput("ended.outcome is not set, or is none that this server knows")
    if name == Outcome.SUCCEEDED and not (ended.artifact.uri and ended.artifact.manifest_sha256):
        raise InvalidInput("ended.artifact is not set, and the outcome is SUCCEEDED")
    return Ending(
        outcome=Outcome(name),
        reason=_text(ended.reason),
        message=_text(uncoloured(ended.message)),
        retryable=ended.retryable,
        artifact=_artifact(ended.artifact) if name == Outcome.SUCCEEDED else None,
    )


def _check_place(member: PackMember, artifact: Artifact | None) -> None:
    """A run writes into its job's folder alone. An artifact elsewhere is another job's, or somebody else's."""
    usual = work.artifact_folder(member.job.kind, member.job.output_uri)
    if artifact is None or artifact.uri == usual:  # whatever an open server took as a folder
        return
    if not lies_in(artifact.uri, member.job.output_uri):
        message = f"ended.artifact.uri: {artifact.uri[:MAX_URI]} is not in {member.job.output_uri}, the folder of {member.job.name}"
        raise InvalidInput(message, reason="ARTIFACT_ELSEWHERE")


def _text(text: str) -> str:
    """Text from a run, sanitized and cut: it may contain anything its libraries said, and is stored with every event."""
    return without_passwords(text.replace("\x00", "\N{REPLACEMENT CHARACTER}"))[:MAX_TEXT]


def _artifact(said: api.Artifact) -> Artifact:
    return Artifact(uri=_text(said.uri), manifest_sha256=_text(said.manifest_sha256), size_bytes=max(0, said.size_bytes) or None)


def _answer(acked: int, pack: list[PackMember]) -> pb.ReportResponse:
    stopping = [member for member in pack if member.state is JobState.STOPPING and member.place.outcome is None]
    return pb.ReportResponse(
        acked_sequence=acked,
        joining=list(_joining([member for member in pack if member.place.joining and member.place.outcome is None])),
        directives=[pb.Directive(job=member.job.name, action=pb.DIRECTIVE_ACTION_STOP) for member in stopping],
        next_report_s=NEXT_REPORT_STOPPING_S if stopping else NEXT_REPORT_S,
    )


def _joining(members: list[PackMember]) -> Iterator[pb.JoiningStyle]:
    """A style whose spec cannot be read is queued again when the run ends, and refused then: the report is the whole run's."""
    for job in (member.job for member in members):
        with row_faults.own("joins", job.name):
            style = Style.of(job.name, spec.parse(job.spec), job.output_uri)
            yield pb.JoiningStyle(job=job.name, style_json=style.model_dump_json())
