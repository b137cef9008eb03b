"""`lorafleet logs`."""

from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import ExitCode, Job, Server, Tenant, complain
from lorafleet.commands.clients import connect
from lorafleet.terminal import say


def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep reading until the job ends.")] = False,
    attempt: Annotated[int, typer.Option("--attempt", min=0, help="Only this attempt; 0: all, oldest first.")] = 0,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Print a job's log, even after it has ended."""
    with connect(server, tenant) as client:
        try:
            for piece in client.logs(job, follow=follow, attempt=attempt):
                say(piece.text.removesuffix("\n"))
        except KeyboardInterrupt:
            complain(f"stopped reading; the job goes on (lorafleet cancel {job} stops it)")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
