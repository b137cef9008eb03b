"""`lorafleet generations`: pictures that a server draws with a base and adapters of the registry."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import ExitCode, Format, Output, Server, Tenant, complain
from lorafleet.commands.clients import connect
from lorafleet.commands.connection import ServerCommands
from lorafleet.commands.download import Folder, fetch
from lorafleet.terminal import say, stdout_console

if TYPE_CHECKING:
    from lorafleet.v1 import generation_service_pb2 as pb

app = typer.Typer(cls=ServerCommands, help="Pictures that a server draws with a base and adapters.", no_args_is_help=True)

Generation = Annotated[str, typer.Argument(metavar="GENERATION", help="Id of the generation.", show_default=False)]
File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON with the fields of a request.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Set a field, such as num_inference_steps=20; repeatable.")
]


@app.command("create")
def create(
    file: File,
    overrides: Overrides = [],  # noqa: B006 - typer only reads it
    generation_id: Annotated[str, typer.Option("--id", help="Its id; unset: chosen by the server.")] = "",
    request_id: Annotated[str, typer.Option("--request-id", help="UUID that makes it safe to repeat this command.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the server check everything without drawing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Watch until it ends; Ctrl-C stops watching, not the pictures.")] = False,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Ask for pictures. Once this returns, the request cannot be lost."""
    from lorafleet import spec_file
    from lorafleet.work import generation

    spec = spec_file.load_as(generation.parse, file, overrides)
    with connect(server, tenant) as client:
        made = client.create_generation(spec, generation_id=generation_id, request_id=request_id, validate_only=dry_run)
        if dry_run:
            say(f"{file} would be accepted: {spec.arithmetic}", err=True)
            return
        say(f"accepted as {made.name}: {spec.arithmetic}", err=True)
        if wait:
            _follow(client.watch_generations(made.name), output)
            return
    _print(made, output)


@app.command("get")
def get(generation: Generation, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Show a generation."""
    with connect(server, tenant) as client:
        found = client.get_generation(generation)
    _print(found, output)


@app.command("list")
def list_generations(
    filter: Annotated[str, typer.Option("--filter", "-f", help="""Such as 'state = RUNNING AND labels.team = "red"'.""")] = "",
    order_by: Annotated[str, typer.Option("--order-by", help="create_time, or create_time desc.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number shown.")] = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List the tenant's generations, newest first."""
    from lorafleet import generation_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = list(islice(client.list_generations(filter=filter, order_by=order_by, page_size=min(limit, 1000)), limit))
    print_plain([tables.plain(each) for each in found], output)
    if output is Format.TABLE:
        stdout_console().print(tables.generations(found))


@app.command("watch")
def watch(generation: Generation, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Watch a generation until it has ended. Ctrl-C stops watching, not the pictures."""
    with connect(server, tenant) as client:
        _follow(client.watch_generations(generation), output)


@app.command("cancel")
def cancel(generation: Generation, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Ask a generation to stop; the pictures that are there stay."""
    with connect(server, tenant) as client:
        found = client.cancel_generation(generation)
    _print(found, output)


@app.command("download")
def download(
    generation: Generation,
    folder: Folder,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Download pictures, sheet and generation.json to a folder, and check every SHA-256: all of it or nothing."""
    with connect(server, tenant) as client:
        fetch(partial(client.download_generation, generation), folder, output)


def _print(found: pb.Generation, output: Format) -> None:
    from lorafleet import generation_tables as tables
    from lorafleet.commands.printing import print_plain

    print_plain(tables.plain(found), output)
    if output is Format.TABLE:
        stdout_console().print(tables.details(found))


def _follow(changes: Iterable[pb.Generation], output: Format) -> None:
    """A line for each change, for people and logs; the last one as it was, for programs. Exits with the outcome's code."""
    from lorafleet import generation_tables as tables
    from lorafleet.commands.watch import outcome

    last, line = None, ""
    try:
        for last in changes:
            if (newer := tables.change(last)) != line:
                line = newer
                say(line, err=True)
    except KeyboardInterrupt:
        complain("stopped watching; it goes on (lorafleet generations cancel stops it)")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if last is None:
        return
    _print(last, output)
    raise typer.Exit(outcome([last]))
