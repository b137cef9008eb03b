"""`lorafleet adapters`: the registry of what was trained."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.clients import connect
from lorafleet.commands.connection import ServerCommands
from lorafleet.terminal import stdout_console

app = typer.Typer(cls=ServerCommands, help="Adapters of the registry and their versions.", no_args_is_help=True)

Adapter = Annotated[str, typer.Argument(metavar="ADAPTER", help="Id of the adapter.", show_default=False)]
AdapterOrVersion = Annotated[str, typer.Argument(metavar="ADAPTER", help="An adapter's id, or ID/versions/NUMBER.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number shown.")]


@app.command("list")
def list_adapters(
    filter: Annotated[str, typer.Option("--filter", "-f", help="""Such as 'family = sdxl AND labels.team = "red"'.""")] = "",
    order_by: Annotated[str, typer.Option("--order-by", help="create_time or name, or either with desc.")] = "",
    limit: Limit = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List the tenant's adapters, newest first."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = list(islice(client.list_adapters(filter=filter, order_by=order_by, page_size=min(limit, 1000)), limit))
    print_plain([tables.plain(adapter) for adapter in found], output)
    if output is Format.TABLE:
        stdout_console().print(tables.adapters(found))


@app.command("show")
def show(
    adapter: AdapterOrVersion, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Show an adapter, or one version with its files."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = client.get_adapter_version(adapter) if "/versions/" in adapter else client.get_adapter(adapter)
    print_plain(tables.plain(found), output)
    if output is Format.TABLE:
        stdout_console().print(tables.details(found))


@app.command("versions")
def versions(
    adapter: Adapter,
    limit: Limit = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List an adapter's versions, newest first."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = list(islice(client.list_adapter_versions(adapter, page_size=min(limit, 1000)), limit))
    print_plain([tables.plain(version) for version in found], output)
    if output is Format.TABLE:
        stdout_console().print(tables.versions(found))
