"""Options, exit codes and messages shared by the commands. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet import terminal
from lorafleet.commands.connection import chosen, given_credentials
from lorafleet.redacting import without_passwords

if TYPE_CHECKING:
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


Server = Annotated[str, typer.Option("--server", envvar="LORAFLEET_SERVER", help="The control plane's host:port.", callback=chosen)]
Tenant = Annotated[str, typer.Option("--tenant", envvar="LORAFLEET_TENANT", help="The tenant to act in.", callback=chosen)]
Output = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="Job id, or tenants/TENANT/jobs/JOB.", show_default=False)]


def connect(server: str, tenant: str) -> Client:
    """A client that reports on stderr when it waits for the server. Raises InvalidInput for contradictory credentials."""
    from lorafleet.client import Client
    from lorafleet.credentials import Credentials
    from lorafleet.transport.retry import Patience

    return Client(server, tenant=tenant, credentials=Credentials(**given_credentials), patience=Patience(on_wait=_report_once()))


def _report_once() -> Callable[[LorafleetError, float], None]:
    seen: set[str] = set()

    def report(error: LorafleetError, left_s: float) -> None:
        if error.message not in seen:
            seen.add(error.message)
            terminal.say(f"{error.message}; trying again for {left_s:.0f} s", err=True, colour="yellow")

    return report


def complain(message: str) -> None:
    terminal.say(without_passwords(message), err=True, colour="red")
