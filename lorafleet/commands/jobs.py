"""`lorafleet list`, `get` and `cancel`."""

from itertools import islice
from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Job, Output, Server, Tenant
from lorafleet.commands.clients import connect


def list_jobs(
    filter: Annotated[
        str, typer.Option("--filter", "-f", help="""Such as '(state = RUNNING OR state = QUEUED) AND labels.team = "red"'.""")
    ] = "",
    order_by: Annotated[str, typer.Option("--order-by", help="create_time, or create_time desc.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number shown.")] = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List the tenant's jobs, newest first."""
    from lorafleet.commands.printing import print_jobs

    with connect(server, tenant) as client:
        found = list(islice(client.list(filter=filter, order_by=order_by, page_size=min(limit, 1000)), limit))
    print_jobs(found, output)


def get(job: Job, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Show a job."""
    from lorafleet.commands.printing import print_job

    with connect(server, tenant) as client:
        found = client.get(job)
    print_job(found, output)


def cancel(job: Job, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Ask a job to stop; it saves a checkpoint first."""
    from lorafleet.commands.printing import print_job

    with connect(server, tenant) as client:
        found = client.cancel(job)
    print_job(found, output)
