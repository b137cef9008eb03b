"""`lorafleet adapters`: the registry of what was trained."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.clients import connect
from lorafleet.commands.connection import ServerCommands
from lorafleet.commands.download import Folder, fetch
from lorafleet.errors import InvalidInput
from lorafleet.terminal import say, stdout_console

app = typer.Typer(cls=ServerCommands, help="Adapters of the registry and their versions.", no_args_is_help=True)

Adapter = Annotated[str, typer.Argument(metavar="ADAPTER", help="Id of the adapter.", show_default=False)]
AdapterOrVersion = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="An adapter's id, ID/versions/NUMBER, or ID@ALIAS.", show_default=False)
]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="ADAPTER/versions/NUMBER, or ADAPTER@ALIAS.", show_default=False)]
Deleted = Annotated[bool, typer.Option("--deleted", help="Deleted ones too.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number shown.")]


@app.command("list")
def list_adapters(
    filter: Annotated[str, typer.Option("--filter", "-f", help="""Such as 'family = sdxl AND labels.team = "red"'.""")] = "",
    order_by: Annotated[str, typer.Option("--order-by", help="create_time or name, or either with desc.")] = "",
    deleted: Deleted = False,
    limit: Limit = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List the tenant's adapters, newest first."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = list(
            islice(client.list_adapters(filter=filter, order_by=order_by, page_size=min(limit, 1000), show_deleted=deleted), limit)
        )
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
        found = client.get_adapter_version(adapter) if _is_version(adapter) else client.get_adapter(adapter)
    print_plain(tables.plain(found), output)
    if output is Format.TABLE:
        stdout_console().print(tables.details(found))


@app.command("versions")
def versions(
    adapter: Adapter,
    deleted: Deleted = False,
    limit: Limit = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List an adapter's versions, newest first."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = list(islice(client.list_adapter_versions(adapter, page_size=min(limit, 1000), show_deleted=deleted), limit))
    print_plain([tables.plain(version) for version in found], output)
    if output is Format.TABLE:
        stdout_console().print(tables.versions(found))


@app.command("promote")
def promote(
    version: Version,
    alias: Annotated[str, typer.Option("--alias", help="Alias that is to point to it.")] = "production",
    expected: Annotated[
        int | None,
        typer.Option("--expected", min=0, help="Only if it points to this now; 0: to none.", show_default=False),
    ] = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Point an alias to a version; the one before is one promote away."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    if not _is_version(version):
        raise InvalidInput(f"{version}: which version? Write {version}/versions/NUMBER, or {version}@ALIAS")
    with connect(server, tenant) as client:
        found = client.get_adapter_version(version)
        adapter, _, number = found.name.partition("/versions/")
        moved = client.set_adapter_alias(adapter, alias, int(number), expected_version=expected)
    print_plain(tables.plain(moved), output)
    if output is Format.TABLE:
        before = f", before it versions/{moved.previous_version}" if moved.previous_version else ""
        say(f"{moved.name} is versions/{moved.version}{before}")


@app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ID, ID/versions/NUMBER or ID@ALIAS.", show_default=False)],
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Delete an adapter or a version, which undelete brings back for 30 days; or take an alias away."""
    from lorafleet.output import when

    with connect(server, tenant) as client:
        if "@" in name:
            adapter, _, alias = name.partition("@")
            client.delete_adapter_alias(adapter, alias)
            return
        found = client.delete_adapter_version(name) if _is_version(name) else client.delete_adapter(name)
    if found.HasField("purge_time"):
        say(f"{found.name} is deleted; until {when(found.purge_time)} it can be undeleted")


@app.command("undelete")
def undelete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ID or ID/versions/NUMBER.", show_default=False)],
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Bring back what was deleted."""
    with connect(server, tenant) as client:
        if _is_version(name):
            client.undelete_adapter_version(name)
        else:
            client.undelete_adapter(name)


@app.command("keep")
def keep(
    adapter: Adapter,
    newest: Annotated[int, typer.Option("--newest", min=0, help="As many of the newest versions stay.")] = 0,
    days: Annotated[int, typer.Option("--days", min=0, help="Versions that are younger stay.")] = 0,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Have the other versions deleted by themselves, but what an alias points to. Without options: none."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = client.set_adapter_retention(adapter, keep_newest=newest, keep_days=days)
    print_plain(tables.plain(found), output)
    if output is Format.TABLE:
        stdout_console().print(tables.details(found))


@app.command("import")
def import_file(
    adapter: Adapter,
    uri: Annotated[str, typer.Argument(metavar="URI", help="A .safetensors file, or PEFT's folder; s3:// or file://.", show_default=False)],
    family: Annotated[str, typer.Option("--family", help="Model family, where the file fits several.", show_default="told")] = "",
    trigger: Annotated[str, typer.Option("--trigger", help="Text that triggers it.", show_default="none")] = "",
    label: Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE; may be repeated.", show_default="none")] = None,
    sha256: Annotated[str, typer.Option("--sha256", help="That the file must have.", show_default="any")] = "",
    parent: Annotated[
        list[str] | None, typer.Option("--parent", help="A version that it was made of; may be repeated.", show_default="none")
    ] = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Make a version of a file that was made elsewhere; it is copied, checked and digested."""
    from lorafleet import adapter_tables as tables
    from lorafleet.commands.printing import print_plain

    if bad := [each for each in label or () if "=" not in each]:
        raise InvalidInput(f"--label: {bad[0]!r} is not KEY=VALUE")
    labels = dict(each.split("=", 1) for each in label or ())
    with connect(server, tenant) as client:
        found = client.import_adapter(adapter, uri, family=family, trigger=trigger, labels=labels, sha256=sha256, parents=parent or ())
    print_plain(tables.plain(found), output)
    if output is Format.TABLE:
        stdout_console().print(tables.details(found))


@app.command("download")
def download(
    version: Version,
    folder: Folder,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Download a version to a folder and check every SHA-256: all of it or nothing."""
    with connect(server, tenant) as client:
        fetch(partial(client.download_adapter, version), folder, output)


def _is_version(name: str) -> bool:
    return "/versions/" in name or "@" in name
