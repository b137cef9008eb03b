"""Options, exit codes and messages shared by the commands. Imports nothing slow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lorafleet.client import Client
    from lorafleet.errors import LorafleetError


class ExitCode(IntEnum):
    """The outcome of a command, for scripts."""

    SUCCEEDED = 0
    ERROR = 1
    INVALID = 2
    JOB_FAILED = 3
    JOB_CANCELLED = 4
    INTERRUPTED = 130


class Format(StrEnum):
    """The values of `-o`."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


given_credentials: dict[str, Any] = {}  # options of `lorafleet` itself, given before the command
Server = Annotated[str, typer.Option("--server", envvar="LORAFLEET_SERVER", help="The control plane's host:port.")]
Tenant = Annotated[str, typer.Option("--tenant", envvar="LORAFLEET_TENANT", help="The tenant to act in.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="Job id, or tenants/TENANT/jobs/JOB.", show_default=False)]


def connect(server: str, tenant: str) -> Client:
    """A client that reports on stderr when it waits for the server. Raises InvalidInput for contradictory credentials."""
    from lorafleet.client import Client
    from lorafleet.credentials import Credentials
    from lorafleet.retry import Patience

    return Client(server, tenant=tenant, credentials=Credentials(**given_credentials), patience=Patience(on_wait=_report_once()))


def _report_once() -> Callable[[LorafleetError, float], None]:
    seen: set[str] = set()

    def report(error: LorafleetError, left_s: float) -> None:
        if error.message not in seen:
            seen.add(error.message)
            typer.secho(f"{error.message}; trying again for {left_s:.0f} s", err=True, fg="yellow")

    return report


def complain(message: str) -> None:
    typer.secho(message, err=True, fg="red")


def stderr_console() -> Console:
    """For progress and remarks; only results go to stdout."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout_console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160  # a pipe has no width
    return Console(highlight=False, width=width)
