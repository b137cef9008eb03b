"""Prints batches and plans in the format that was asked for."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.text import Text

from lorafleet import output, tables
from lorafleet.commands import Format
from lorafleet.commands.printing import print_outcomes, print_plain
from lorafleet.states import ENDED, has_ended, name_of
from lorafleet.terminal import say, stdout_console
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb

MAX_FAILURES = 20  # different ones, on a screen; the report has all
BATCHES = (
    tables.name("BATCH"),
    tables.number("STYLES", leaves=2),
    tables.number("ENDED", leaves=3),
    tables.number("AGE", leaves=1),
    tables.prose("STATES"),
)
PACKS = (
    tables.name("PACK"),
    tables.number("STYLES", leaves=1),
    tables.number("MEMORY", leaves=3),
    tables.value("CLOSED BY", leaves=4),
    tables.value("IN COMMON", leaves=2),
    tables.message("WHO"),
)


def print_batch(batch: batch_pb.Batch, format: Format) -> None:
    if format is Format.TABLE:
        stdout_console().print(_details(batch))
    else:
        print_plain(_plain(batch), format)


def print_batches(batches: Sequence[batch_pb.Batch], format: Format) -> None:
    if format is Format.TABLE:
        stdout_console().print(_table(batches))
    else:
        print_plain([_plain(batch) for batch in batches], format)


def print_plan(plan: batch_pb.PlanBatchResponse, names: Sequence[str], format: Format) -> None:
    """`names` are those of the items, in order."""
    if format is not Format.TABLE:
        print_plain(_plain(plan), format)
        return
    stdout_console().print(_plan_table(plan, names))
    num_items = sum(len(pack.items) for pack in plan.packs)
    limit = f"; a worker has {_gib(plan.memory_limit_bytes)}" if plan.memory_limit_bytes else ""
    say(f"{output.number(num_items, 'style')} in {output.number(len(plan.packs), 'pack')}{limit}", err=True)


def print_end(batch: batch_pb.Batch, jobs: Sequence[pb.TrainingJob], format: Format) -> None:
    """The outcome of a batch, for people: its failures, and what to do next."""
    if format is not Format.TABLE:
        return
    bad = [job for job in jobs if has_ended(job) and job.state != pb.JOB_STATE_SUCCEEDED]
    groups = output.alike(bad)
    if bad:
        print_outcomes([job for group in groups[:MAX_FAILURES] for job in group])
    if left := sum(map(len, groups[MAX_FAILURES:])):
        say(f"and {left} more")
    done = sum(job.state == pb.JOB_STATE_SUCCEEDED for job in jobs)
    say(f"{batch_id_of(batch)}  {done} of {output.number(len(jobs), 'style')} succeeded")
    if any(job.state == pb.JOB_STATE_FAILED for job in bad):
        say(f"to retry the failed ones: lorafleet batch retry {batch_id_of(batch)}", err=True)


def batch_id_of(batch: batch_pb.Batch) -> str:
    """`tonight` of tenants/acme/batches/tonight."""
    return batch.name.rpartition("/")[2]


def _plain(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _table(batches: Sequence[batch_pb.Batch]) -> tables.Table:
    now = datetime.now(UTC)
    return tables.Table(BATCHES, (_row(batch, now) for batch in batches))


def _row(batch: batch_pb.Batch, now: datetime) -> Sequence[tables.Cell]:
    ended = sum(count.count for count in batch.counts if count.state in ENDED)
    return batch_id_of(batch), str(batch.num_jobs), str(ended), output.age(batch.create_time, now), _states(batch)


def _details(batch: batch_pb.Batch) -> tables.Table:
    return tables.details(
        [
            ("name", batch.name),
            ("styles", str(batch.num_jobs)),
            ("states", _states(batch)),
            ("created", output.when(batch.create_time)),
            ("ended", output.when(batch.end_time)),
        ]
    )


def _states(batch: batch_pb.Batch) -> Text:
    parts = [Text(f"{one.count} {name_of(one.state).lower()}", style=output.COLOURS.get(one.state, "")) for one in batch.counts]
    return Text(", ").join(parts)


def _plan_table(plan: batch_pb.PlanBatchResponse, names: Sequence[str]) -> tables.Table:
    return tables.Table(PACKS, (_pack_row(number, pack, names) for number, pack in enumerate(plan.packs, start=1)))


def _pack_row(number: int, pack: batch_pb.PlannedPack, names: Sequence[str]) -> Sequence[tables.Cell]:
    who = ", ".join(names[item] for item in pack.items)
    return str(number), str(len(pack.items)), _gib(pack.memory_bytes), pack.closed_by.lower(), pack.key, who


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes else ""
