"""Prints batches and plans in the format that was asked for."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.table import Table
from rich.text import Text

from lorafleet import output
from lorafleet.commands import Format, stderr_console, stdout_console
from lorafleet.states import ENDED, has_ended, name_of
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb

MAX_FAILURES = 20  # on a screen; the report has all


def print_batch(batch: batch_pb.Batch, format: Format) -> None:
    if format is Format.TABLE:
        stdout_console().print(_details(batch))
    else:
        _print_plain(_plain(batch), format)


def print_batches(batches: Sequence[batch_pb.Batch], format: Format) -> None:
    if format is Format.TABLE:
        stdout_console().print(_table(batches))
    else:
        _print_plain([_plain(batch) for batch in batches], format)


def print_plan(plan: batch_pb.PlanBatchResponse, names: Sequence[str], format: Format) -> None:
    """`names` are those of the items, in order."""
    if format is not Format.TABLE:
        _print_plain(_plain(plan), format)
        return
    stdout_console().print(_plan_table(plan, names))
    num_items = sum(len(pack.items) for pack in plan.packs)
    limit = f"; a worker has {_gib(plan.memory_limit_bytes)}" if plan.memory_limit_bytes else ""
    stderr_console().print(f"{output.number(num_items, 'style')} in {output.number(len(plan.packs), 'pack')}{limit}", markup=False)


def print_end(batch: batch_pb.Batch, jobs: Sequence[pb.TrainingJob], format: Format) -> None:
    """The outcome of a batch, for people: its failures, and what to do next."""
    if format is not Format.TABLE:
        return
    bad = [job for job in jobs if has_ended(job) and job.state != pb.JOB_STATE_SUCCEEDED]
    for job in bad[:MAX_FAILURES]:
        stdout_console().print(output.ending(job), soft_wrap=True)
    if len(bad) > MAX_FAILURES:
        stdout_console().print(f"and {len(bad) - MAX_FAILURES} more")
    done = sum(job.state == pb.JOB_STATE_SUCCEEDED for job in jobs)
    stdout_console().print(f"{batch_id_of(batch)}  {done} of {output.number(len(jobs), 'style')} succeeded", highlight=False, markup=False)
    if any(job.state == pb.JOB_STATE_FAILED for job in bad):
        stderr_console().print(f"to retry the failed ones: lorafleet batch retry {batch_id_of(batch)}", markup=False)


def batch_id_of(batch: batch_pb.Batch) -> str:
    """`tonight` of tenants/acme/batches/tonight."""
    return batch.name.rpartition("/")[2]


def _plain(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _print_plain(value: Any, format: Format) -> None:
    typer.echo(output.as_json(value) if format is Format.JSON else output.as_yaml(value))


def _table(batches: Sequence[batch_pb.Batch]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("BATCH", no_wrap=True)
    for heading in ("STYLES", "ENDED", "AGE"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("STATES", no_wrap=True, overflow="ellipsis")
    now = datetime.now(UTC)
    for batch in batches:
        ended = sum(count.count for count in batch.counts if count.state in ENDED)
        table.add_row(batch_id_of(batch), str(batch.num_jobs), str(ended), output.age(batch.create_time, now), _states(batch))
    return table


def _details(batch: batch_pb.Batch) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, value in (
        ("name", batch.name),
        ("styles", str(batch.num_jobs)),
        ("states", _states(batch)),
        ("created", output.when(batch.create_time)),
        ("ended", output.when(batch.end_time)),
    ):
        if value:
            table.add_row(heading, value)
    return table


def _states(batch: batch_pb.Batch) -> Text:
    parts = [Text(f"{one.count} {name_of(one.state).lower()}", style=output.COLOURS.get(one.state, "")) for one in batch.counts]
    return Text(", ").join(parts)


def _plan_table(plan: batch_pb.PlanBatchResponse, names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("PACK", "STYLES", "MEMORY"):
        table.add_column(heading, no_wrap=True, justify="right")
    for heading in ("CLOSED BY", "IN COMMON"):
        table.add_column(heading, no_wrap=True)
    table.add_column("WHO", no_wrap=True, overflow="ellipsis", ratio=1)
    for number, pack in enumerate(plan.packs, start=1):
        who = ", ".join(names[item] for item in pack.items)
        table.add_row(str(number), str(len(pack.items)), _gib(pack.memory_bytes), pack.closed_by.lower(), pack.key, who)
    return table


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes else ""
