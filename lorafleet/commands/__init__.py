"""Options, exit codes and messages shared by the commands. Imports nothing slow."""

from enum import IntEnum, StrEnum
from typing import Annotated

import typer

from lorafleet import terminal
from lorafleet.commands.connection import chosen
from lorafleet.redacting import without_passwords


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


def complain(message: str) -> None:
    terminal.say(without_passwords(message), err=True, colour="red")
