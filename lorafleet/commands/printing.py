"""Prints jobs in the format that was asked for."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from lorafleet import output, terminal
from lorafleet.commands import Format
from lorafleet.terminal import stdout_console
from lorafleet.v1 import training_service_pb2 as pb


def print_plain(value: Any, format: Format) -> None:
    """A value for programs, in letters that stdout has. JSON or YAML; nothing for people."""
    match format:
        case Format.JSON:
            terminal.say_json(value)
        case Format.YAML:
            terminal.say(_yaml(value))
        case Format.TABLE:
            pass


def print_job(job: pb.TrainingJob, format: Format) -> None:
    if format is Format.TABLE:
        stdout_console().print(output.details_of(job))
    else:
        print_plain(output.plain(job), format)


def print_jobs(jobs: Iterable[pb.TrainingJob], format: Format) -> None:
    if format is Format.TABLE:
        stdout_console().print(output.table_of(jobs, datetime.now(UTC)))
    else:
        print_plain([output.plain(job) for job in jobs], format)


def print_change(job: pb.TrainingJob, format: Format) -> None:
    """A change, for programs: a JSON object per line, or a YAML document. People see the bars."""
    match format:
        case Format.JSON:
            terminal.say_json(output.plain(job), indent=None)
        case Format.YAML:
            terminal.say(f"---\n{_yaml(output.plain(job))}")
        case Format.TABLE:
            pass


def print_endings(jobs: Sequence[pb.TrainingJob], format: Format) -> None:
    """The outcome of jobs, for people."""
    if format is Format.TABLE and jobs:
        print_outcomes(jobs)


def print_outcomes(jobs: Sequence[pb.TrainingJob]) -> None:
    """A table on a terminal; elsewhere a line for each, and another for those that ended alike."""
    console = stdout_console()
    if console.is_terminal:
        console.print(output.endings_of(jobs))
        return
    for first, *others in output.alike(jobs):
        console.print(output.ending(first), soft_wrap=True)
        if others:
            terminal.say(f"  {output.likewise(others)}")


def _yaml(value: Any) -> str:
    return output.as_yaml(value, allow_unicode=terminal.has_all_letters(terminal.encoding_of(sys.stdout)))
