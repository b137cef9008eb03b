"""Writes jobs as text: JSON and YAML for programs, tables for people. Pure but for the console it is given."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from lorafleet import spec_proto, tables
from lorafleet.control_characters import is_harmless, one_line, visible_json
from lorafleet.states import job_id, label
from lorafleet.terminal import TIME_FORMAT
from lorafleet.v1 import training_service_pb2 as pb

COLOURS: dict[int, str] = {
    pb.JOB_STATE_SUCCEEDED: "green",
    pb.JOB_STATE_FAILED: "red",
    pb.JOB_STATE_CANCELLED: "yellow",
    pb.JOB_STATE_RUNNING: "cyan",
}


def as_json(value: Any, *, indent: int | None = 2) -> str:
    return visible_json(json.dumps(value, indent=indent, ensure_ascii=False))


def as_yaml(value: Any, *, allow_unicode: bool = True) -> str:
    """With YAML's own escapes where a terminal would obey a letter, or not have it."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=allow_unicode).rstrip("\n")
    return text if is_harmless(text) or not allow_unicode else as_yaml(value, allow_unicode=False)


def plain(job: pb.TrainingJob) -> dict[str, Any]:
    """The job by the proto's names. Its spec is written as spec files are, so that it can be submitted again."""
    fields = json_format.MessageToDict(job, preserving_proto_field_name=True)
    if job.HasField("spec"):
        fields["spec"] = spec_proto.fields(job.spec)
    return fields


MAX_LIKEWISE = 20  # names of jobs that ended like another
JOBS = (
    tables.name("JOB"),
    tables.state("STATE"),
    tables.value("PHASE", leaves=3),
    tables.number("STEP", leaves=1),
    tables.number("LOSS", leaves=4),
    tables.number("HELD-OUT", leaves=5),
    tables.number("PICTURES/S", leaves=6),
    tables.number("AGE", leaves=2),
    tables.message("MESSAGE"),
)


def table_of(jobs: Iterable[pb.TrainingJob], now: datetime) -> tables.Table:
    rows = ((job_id(job), state(job), doing(job), *_numbers(job), age(job.create_time, now), job.message or job.reason) for job in jobs)
    return tables.Table(JOBS, rows)


def _numbers(job: pb.TrainingJob) -> tuple[str, str, str, str]:
    return steps(job), loss(job), held_out(job), speed(job)


def details_of(job: pb.TrainingJob) -> tables.Table:
    """One job, a line for each thing that is known of it."""
    return tables.details(_details(job))


def _details(job: pb.TrainingJob) -> Sequence[tuple[str, str | Text]]:
    return [
        ("name", job.name),
        ("state", state(job)),
        ("reason", job.reason),
        ("message", job.message),
        ("place in the queue", place(job)),
        ("phase", job.progress.phase),
        ("step", steps(job)),
        ("loss", loss(job)),
        ("held-out loss", held_out(job)),
        ("pictures/s", speed(job)),
        ("corrupt pictures", str(job.progress.num_corrupt_pictures or "")),
        ("attempts", "\n".join(_attempt(attempt) for attempt in job.attempts)),
        ("output", job.output_uri),
        ("artifact", job.artifact.uri),
        ("adapter version", job.adapter_version),
        ("created", when(job.create_time)),
        ("first step", when(job.first_step_time)),
        ("ended", when(job.end_time)),
    ]


def _attempt(attempt: pb.Attempt) -> str:
    resumed = f", resumed from step {attempt.resumed_from_step}" if attempt.resumed_from_step else ""
    ended = f", {attempt.reason} {attempt.message}" if attempt.reason else ""
    return f"{attempt.number}: {attempt.run}{resumed}{ended}"


def ending(job: pb.TrainingJob) -> Text:
    """How a job ended, and where to look next."""
    known = [state(job), Text(held_out(job)), Text(one_line(job.message)), Text(one_line(job.artifact.uri))]
    return Text("  ").join([Text(job_id(job), style="bold"), *(part for part in known if part)])


ENDINGS = (tables.name("JOB"), tables.state("STATE"), tables.number("HELD-OUT", leaves=1), tables.prose("WHY"))


def endings_of(jobs: Iterable[pb.TrainingJob]) -> tables.Table:
    """How jobs ended, for a terminal. Those that ended alike are told together, under the first of them."""
    return tables.Table(ENDINGS, [_ending_row(*group) for group in alike(jobs)], heading_style=None)


def _ending_row(first: pb.TrainingJob, *others: pb.TrainingJob) -> Sequence[tables.Cell]:
    """What a failure had learnt by then leaves its room to the reason."""
    learnt = "" if first.state == pb.JOB_STATE_FAILED else held_out(first)
    return Text(job_id(first), style="bold"), state(first), learnt, _why([first, *others])


def alike(jobs: Iterable[pb.TrainingJob]) -> list[list[pb.TrainingJob]]:
    """The jobs, those with the same state and message together. A job with an artifact is like no other."""
    groups: dict[tuple[object, ...], list[pb.TrainingJob]] = {}
    for job in jobs:
        groups.setdefault((job.state, job.reason, job.message, job.artifact.uri or (not job.message and job.name)), []).append(job)
    return list(groups.values())


def likewise(others: Sequence[pb.TrainingJob]) -> str:
    """`likewise fox, hare and 7 more`."""
    names = ", ".join(job_id(job) for job in others[:MAX_LIKEWISE])
    return f"likewise {names}" + (f" and {len(others) - MAX_LIKEWISE} more" if len(others) > MAX_LIKEWISE else "")


def _why(jobs: Sequence[pb.TrainingJob]) -> str:
    first, *others = jobs
    told = [one_line(first.message or first.reason), one_line(first.artifact.uri), likewise(others) if others else ""]
    return "\n".join(part for part in told if part)


def state(job: pb.TrainingJob) -> Text:
    return Text(label(job), style=COLOURS.get(job.state, ""))


def place(job: pb.TrainingJob) -> str:
    """`3`; empty for a job that does not wait. The message says what it waits for."""
    return str(job.queue_position or "")


def doing(job: pb.TrainingJob) -> str:
    """The phase, or the place in the queue: `#3`."""
    return f"#{place(job)}" if place(job) else one_line(job.progress.phase)


def steps(job: pb.TrainingJob) -> str:
    return f"{job.progress.step}/{job.progress.max_steps}" if job.progress.max_steps else ""


def loss(job: pb.TrainingJob) -> str:
    return f"{job.progress.loss:.4f}" if job.progress.step else ""


def held_out(job: pb.TrainingJob) -> str:
    """`0.3312 → 0.0874 (-74%)`: the base's, then the newest once there is another."""
    progress = job.progress
    if not progress.HasField("held_out_loss_base"):
        return ""
    base = progress.held_out_loss_base
    if not progress.HasField("held_out_loss") or not base or progress.held_out_loss == base:
        return f"{base:.4f}"
    return f"{base:.4f} → {progress.held_out_loss:.4f} ({progress.held_out_loss / base - 1:+.0%})"


def speed(job: pb.TrainingJob) -> str:
    return f"{job.progress.pictures_per_second:.1f}" if job.progress.pictures_per_second else ""


def number(count: int, thing: str) -> str:
    """`1 pack`, `2 packs`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def clock(seconds: float) -> str:
    """`1:05`, `1:02:05`."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    return f"{hours}:{minutes % 60:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def when(time: Timestamp) -> str:
    return time.ToDatetime(UTC).strftime(TIME_FORMAT) if time.seconds else ""


def age(time: Timestamp, now: datetime) -> str:
    """`42s`, `3m`, `5h`, `2d`: as kubectl writes it."""
    if not time.seconds:
        return ""
    seconds = max(0, int((now - time.ToDatetime(UTC)).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
