"""`lorafleet webhooks`: endpoints that are told what happens to adapters."""

from __future__ import annotations

from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.clients import connect
from lorafleet.commands.connection import ServerCommands
from lorafleet.terminal import say, stdout_console

app = typer.Typer(cls=ServerCommands, help="Endpoints that are told what happens to adapters.", no_args_is_help=True)

Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id of the webhook.", show_default=False)]


@app.command("create")
def create(
    webhook: Webhook,
    url: Annotated[str, typer.Argument(metavar="URL", help="https:// URL that events are sent to.", show_default=False)],
    event: Annotated[
        list[str] | None, typer.Option("--event", help="Type of event that it is told; may be repeated.", show_default="all")
    ] = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Add a webhook, and print the secret that its events are signed with: it is not shown again."""
    from lorafleet import webhook_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        made = client.create_webhook(webhook, url, event_types=event or ())
    print_plain(tables.plain(made), output)
    if output is Format.TABLE:
        say(made.secret)


@app.command("list")
def list_webhooks(output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """List the tenant's webhooks, and how their deliveries go."""
    from lorafleet import webhook_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = list(client.list_webhooks())
    print_plain([tables.plain(each) for each in found], output)
    if output is Format.TABLE:
        stdout_console().print(tables.webhooks(found))


@app.command("show")
def show(webhook: Webhook, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Show a webhook."""
    from lorafleet import webhook_tables as tables
    from lorafleet.commands.printing import print_plain

    with connect(server, tenant) as client:
        found = client.get_webhook(webhook)
    print_plain(tables.plain(found), output)
    if output is Format.TABLE:
        stdout_console().print(tables.details(found))


@app.command("resume")
def resume(webhook: Webhook, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Go on with a paused webhook, by the event that it had not taken."""
    with connect(server, tenant) as client:
        client.resume_webhook(webhook)


@app.command("delete")
def delete(webhook: Webhook, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Remove a webhook, and what it has not been told yet."""
    with connect(server, tenant) as client:
        client.delete_webhook(webhook)
