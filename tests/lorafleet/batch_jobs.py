"""A batch's jobs for tests: some done, some failed, some in two packs, the rest queued."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.jobs import a_job

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BATCH = "tenants/acme/batches/tonight"


def before_now(seconds: float) -> Timestamp:
    return at(NOW - timedelta(seconds=seconds))


def at(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def tonight(num_jobs: int = 400) -> list[pb.TrainingJob]:
    """Accepted half an hour ago."""
    return [of_batch(index, num_jobs) for index in range(num_jobs)]


def of_batch(index: int, num_jobs: int) -> pb.TrainingJob:
    place = index / num_jobs
    if place < 0.5:
        return _known(index, "SUCCEEDED", 200, held_out=0.1 + index % 7 / 10)
    if place < 0.51:
        return _known(index, "FAILED", 50, reason="NAN_LOSS", message="the loss is\nnot a number at step 50")
    if place < 0.6:
        return _known(index, "RUNNING", 40 + index % 3, held_out=0.44 if index % 30 == 0 else 0.2, pictures_per_second=3.0 + index % 5)
    return _known(index, "QUEUED", 0, message="waits for a free run")


def _known(
    index: int, state: str, step: int, *, held_out: float | None = None, pictures_per_second: float = 0.0, **fields: str
) -> pb.TrainingJob:
    job = a_job(f"style-{index:05d}", state, step=step, create_time=before_now(1800), batch=BATCH, batch_index=index, **fields)
    job.progress.pictures_per_second = pictures_per_second
    job.spec.training.max_steps = 200
    if held_out is not None:
        job.progress.held_out_loss_base, job.progress.held_out_loss = 0.4, held_out
    if state != "QUEUED":
        job.attempts.append(pb.Attempt(number=1, run=f"run-{index % 2}", pack_size=16))
    if state in {"SUCCEEDED", "FAILED"}:
        job.end_time.CopyFrom(before_now(60))
    return job
