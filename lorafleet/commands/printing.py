"""Prints jobs in the format that was asked for."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import typer

from lorafleet import output
from lorafleet.commands import Format, stdout_console
from lorafleet.v1 import training_service_pb2 as pb


def print_job(job: pb.TrainingJob, format: Format) -> None:
    match format:
        case Format.JSON:
            typer.echo(output.as_json(output.plain(job)))
        case Format.YAML:
            typer.echo(output.as_yaml(output.plain(job)))
        case Format.TABLE:
            stdout_console().print(output.details_of(job))


def print_jobs(jobs: Iterable[pb.TrainingJob], format: Format) -> None:
    match format:
        case Format.JSON:
            typer.echo(output.as_json([output.plain(job) for job in jobs]))
        case Format.YAML:
            typer.echo(output.as_yaml([output.plain(job) for job in jobs]))
        case Format.TABLE:
            stdout_console().print(output.table_of(jobs, datetime.now(UTC)))


def print_change(job: pb.TrainingJob, format: Format) -> None:
    """A change, for programs: a JSON object per line, or a YAML document. People see the bars."""
    match format:
        case Format.JSON:
            typer.echo(json.dumps(output.plain(job), ensure_ascii=False))
        case Format.YAML:
            typer.echo(f"---\n{output.as_yaml(output.plain(job))}")
        case Format.TABLE:
            pass


def print_endings(jobs: Sequence[pb.TrainingJob], format: Format) -> None:
    """The outcome of jobs, for people."""
    if format is Format.TABLE:
        for job in jobs:
            stdout_console().print(output.ending(job), soft_wrap=True)
