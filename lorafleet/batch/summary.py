"""Sums up a batch's jobs in numbers: counts, steps, rates, time left, and which jobs to look at first. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from lorafleet.states import has_ended
from lorafleet.v1 import training_service_pb2 as pb

ORDER = (
    pb.JOB_STATE_SUCCEEDED,
    pb.JOB_STATE_RUNNING,
    pb.JOB_STATE_STOPPING,
    pb.JOB_STATE_STARTING,
    pb.JOB_STATE_ADMITTED,
    pb.JOB_STATE_QUEUED,
    pb.JOB_STATE_CANCELLED,
    pb.JOB_STATE_FAILED,
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A batch in numbers. None: not known yet."""

    num_jobs: int
    counts: Mapping[int, int]  # by state, those there are, from done to not begun
    steps_done: int  # of a job that has ended: all it had
    steps_total: int
    steps_per_second: float  # of the jobs that train now, together
    pictures_per_second: float  # likewise
    elapsed_s: float  # since the first was accepted, until the last has ended
    remaining_s: float | None
    styles_per_hour: float | None
    waits_for: str  # what most of those that have not begun are waiting for, in the server's words
    is_estimate: bool  # no style is done yet: styles_per_hour is what the steps' rate would give


def summarize(jobs: Sequence[pb.TrainingJob], now: datetime) -> Summary:
    """The numbers of the jobs as they are at `now`."""
    found = Counter(job.state for job in jobs)
    steps_done, steps_total = sum(map(steps_done_of, jobs)), sum(map(steps_of, jobs))
    rate = sum(map(steps_per_second, jobs))
    elapsed_s = _elapsed_s(jobs, now)
    measured = 3600 * found[pb.JOB_STATE_SUCCEEDED] / elapsed_s if elapsed_s else 0
    expected = 3600 * rate * len(jobs) / steps_total if steps_total else 0
    return Summary(
        num_jobs=len(jobs),
        counts={state: found[state] for state in [*ORDER, *sorted(set(found) - set(ORDER))] if found[state]},
        steps_done=steps_done,
        steps_total=steps_total,
        steps_per_second=rate,
        pictures_per_second=sum(job.progress.pictures_per_second for job in jobs if job.state == pb.JOB_STATE_RUNNING),
        elapsed_s=elapsed_s,
        remaining_s=_remaining_s(steps_total - steps_done, rate),
        styles_per_hour=measured or expected or None,
        waits_for=_waits_for(jobs),
        is_estimate=not measured,
    )


def worst_first(jobs: Sequence[pb.TrainingJob]) -> list[pb.TrainingJob]:
    """Failed ones; then by held-out loss over the base's, highest first; then those that train, slowest first."""
    return [job for _, job in sorted(((_badness(job), job) for job in jobs if _worth_a_look(job)), key=lambda pair: pair[0])]


def held_out_ratio(job: pb.TrainingJob) -> float | None:
    """Held-out loss over that of the base: above 1 the adapter has made it worse."""
    progress = job.progress
    if not progress.HasField("held_out_loss") or not progress.held_out_loss_base or not progress.step:
        return None
    return progress.held_out_loss / progress.held_out_loss_base


def steps_of(job: pb.TrainingJob) -> int:
    return job.progress.max_steps or job.spec.training.max_steps


def steps_done_of(job: pb.TrainingJob) -> int:
    """All of them once it has ended, however it did: nothing is left to do."""
    return steps_of(job) if has_ended(job) else job.progress.step


def steps_per_second(job: pb.TrainingJob) -> float:
    if job.state != pb.JOB_STATE_RUNNING:
        return 0.0
    training = job.spec.training
    pictures = (training.micro_batch_size or 1) * (training.gradient_accumulation_steps or 1) * (job.spec.cluster.num_workers or 1)
    return job.progress.pictures_per_second / pictures


def _badness(job: pb.TrainingJob) -> tuple[int, float, int]:
    if job.state == pb.JOB_STATE_FAILED:
        return 0, 0.0, job.batch_index
    ratio = held_out_ratio(job)
    return (1, -ratio, job.batch_index) if ratio is not None else (2, job.progress.pictures_per_second, job.batch_index)


def _worth_a_look(job: pb.TrainingJob) -> bool:
    if job.state in (pb.JOB_STATE_FAILED, pb.JOB_STATE_RUNNING):
        return True
    return job.state == pb.JOB_STATE_SUCCEEDED and held_out_ratio(job) is not None


def _waits_for(jobs: Sequence[pb.TrainingJob]) -> str:
    messages = Counter(job.message for job in jobs if job.message and job.state in (pb.JOB_STATE_QUEUED, pb.JOB_STATE_ADMITTED))
    return messages.most_common(1)[0][0] if messages else ""


def _remaining_s(steps_left: int, rate: float) -> float | None:
    if steps_left <= 0:
        return 0.0
    return steps_left / rate if rate else None


def _elapsed_s(jobs: Sequence[pb.TrainingJob], now: datetime) -> float:
    accepted = [_time(job.create_time) for job in jobs if job.create_time.seconds]
    if not accepted:
        return 0.0
    ended = [_time(job.end_time) for job in jobs if job.end_time.seconds and has_ended(job)]
    end = max(ended) if len(ended) == len(jobs) else now
    return max(0.0, (end - min(accepted)).total_seconds())


def _time(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC)
