"""`lorafleet batch list`, `get`, `jobs`, `cancel` and `retry`."""

from itertools import islice
from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.batch.source import Batch
from lorafleet.commands.clients import connect


def list_batches(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number shown.")] = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List the tenant's batches, newest first."""
    from lorafleet.commands.batch.printing import print_batches

    with connect(server, tenant) as client:
        found = list(islice(client.list_batches(page_size=min(limit, 1000)), limit))
    print_batches(found, output)


def get(batch: Batch, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Show a batch and its counts of jobs."""
    from lorafleet.commands.batch.printing import print_batch

    with connect(server, tenant) as client:
        found = client.get_batch(batch)
    print_batch(found, output)


def list_jobs(
    batch: Batch,
    filter: Annotated[str, typer.Option("--filter", "-f", help="""Such as 'state = FAILED AND labels.team = "red"'.""")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number shown.")] = 10_000,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List the jobs of a batch in the order of its items."""
    from lorafleet.commands.printing import print_jobs

    with connect(server, tenant) as client:
        found = list(islice(client.list_batch_jobs(batch, filter=filter), limit))
    print_jobs(found, output)


def cancel(batch: Batch, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Ask every unfinished job of a batch to stop; each saves a checkpoint first."""
    from lorafleet.commands.batch.printing import print_batch

    with connect(server, tenant) as client:
        found = client.cancel_batch(batch)
    print_batch(found, output)


def retry(batch: Batch, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Queue the failed jobs of a batch again."""
    from lorafleet.commands.batch.printing import print_batch

    with connect(server, tenant) as client:
        found = client.retry_failed(batch)
    print_batch(found, output)
