"""Turns rows into API messages. Pure: what the wire shows of a job, and nothing else."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from lorafleet import spec, spec_proto
from lorafleet.v1 import batch_service_pb2 as pb_batch
from lorafleet.v1 import training_service_pb2 as pb
from service.control.lifecycle import FINISHED, JobState
from service.db.attempts import JobRun
from service.db.batches import Counts
from service.db.models import BatchRow, JobRow
from service.jobs import kinds
from service.runs.progress import progress_of


def job_message(job: JobRow, runs: Sequence[JobRun], *, with_spec: bool = True) -> pb.TrainingJob:
    """The job as users see it. Events are kept without the spec, which never changes."""
    message = pb.TrainingJob(
        name=job.name,
        uid=job.uid,
        state=f"JOB_STATE_{job.state}",
        reason=job.reason,
        message=job.message,
        attempts=attempts_of(runs),
        output_uri=job.output_uri,
        create_time=time(job.create_time),
        first_step_time=time(job.first_step_time),
        end_time=time(job.end_time),
        update_time=time(job.update_time),
        etag=job_etag(job),
        batch=job.batch,
        batch_index=job.batch_index or 0,
        adapter_version=job.adapter_version_name,
        queue_position=(job.queue_position or 0) if job.state == JobState.QUEUED.value else 0,
    )
    if job.progress is not None:
        message.progress.CopyFrom(progress_of(job.progress))
    if (artifact := artifact_of(job)) is not None:
        message.artifact.CopyFrom(artifact)
    if with_spec:
        add_spec(message, job)
    return message


def job_event(job: JobRow, runs: Sequence[JobRun]) -> bytes:
    """The job, or other work, as the event log keeps it."""
    return kinds.of(job.kind).message(job, runs, with_spec=False).SerializeToString()


def batch_message(batch: BatchRow, counts: Counts) -> pb_batch.Batch:
    """The batch as users see it. It has ended when all of its jobs have."""
    ended = sum(counts.by_state.get(state, 0) for state in FINISHED) == batch.num_jobs
    found = [(state, counts.by_state.get(state, 0)) for state in JobState]
    return pb_batch.Batch(
        name=batch.name,
        uid=batch.uid,
        num_jobs=batch.num_jobs,
        counts=[pb_batch.StateCount(state=f"JOB_STATE_{state}", count=count) for state, count in found if count],
        create_time=time(batch.create_time),
        end_time=time(counts.last_end) if ended else None,
        etag=batch_etag(batch, counts),
    )


def job_etag(job: JobRow) -> str:
    """Changes with every change of the job (AIP-154)."""
    return f"{job.uid}-{job.version}"


def batch_etag(batch: BatchRow, counts: Counts) -> str:
    """Changes with every change of the counts: nothing else of a batch does (AIP-154)."""
    seen = [batch.uid, counts.last_end, *(counts.by_state.get(state, 0) for state in JobState)]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:24]


def add_spec(message: pb.TrainingJob, job: JobRow) -> None:
    """Fills in what was asked for; nothing of a spec that this server cannot read."""
    with suppress(Exception):  # one that is no spec any more: the job says so, and would be shown to nobody else
        message.spec.CopyFrom(spec_proto.to_proto(spec.parse(job.spec)))


def attempts_of(runs: Sequence[JobRun]) -> list[pb.Attempt]:
    """The runs of a job, as users see them."""
    return [_attempt(run) for run in runs]


def artifact_of(job: JobRow) -> pb.Artifact | None:
    """What it has committed."""
    if not job.artifact_uri or not job.artifact_sha256:
        return None
    return pb.Artifact(uri=job.artifact_uri, manifest_sha256=job.artifact_sha256, size_bytes=job.artifact_bytes or 0)


def _attempt(attempt: JobRun) -> pb.Attempt:
    member, run = attempt.member, attempt.run
    return pb.Attempt(
        number=member.attempt,
        run=run.id,
        reason=member.reason,
        message=member.message,
        start_time=time(run.launch_time),
        end_time=time(run.gone_time),
        resumed_from_step=member.resumed_from_step,
        pack_size=attempt.pack_size,
    )


def time(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp
