"""`lorafleet batch watch`: one screen on a terminal, lines elsewhere, JSON or YAML for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import ExitCode, Format, Output, Server, Tenant, complain
from lorafleet.commands.batch.source import Batch
from lorafleet.commands.clients import connect
from lorafleet.terminal import stderr_console

if TYPE_CHECKING:
    from lorafleet.client import Client
    from lorafleet.v1 import batch_service_pb2 as batch_pb
    from lorafleet.v1 import training_service_pb2 as pb


def watch(batch: Batch, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Watch a batch until all its jobs have ended. Ctrl-C stops watching, not the jobs."""
    with connect(server, tenant) as client:
        follow_to_the_end(client, client.get_batch(batch), output)


def follow_to_the_end(client: Client, batch: batch_pb.Batch, output: Format) -> None:
    """Show a batch until all its jobs have ended, then exit with the code of the worst outcome."""
    from lorafleet.batch.view import view_on
    from lorafleet.commands.batch.printing import batch_id_of, print_end
    from lorafleet.commands.printing import print_change
    from lorafleet.commands.watch import outcome

    jobs: dict[str, pb.TrainingJob] = {}
    try:
        with view_on(stderr_console(), batch) as show:
            for job in client.watch_batch(batch.name):
                show(job)
                jobs[job.name] = job
                print_change(job, output)
    except KeyboardInterrupt:
        complain(f"stopped watching; {batch_id_of(batch)} goes on (lorafleet batch cancel {batch_id_of(batch)} stops it)")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    print_end(batch, list(jobs.values()), output)
    raise typer.Exit(outcome(list(jobs.values())))
