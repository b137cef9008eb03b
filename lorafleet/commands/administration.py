"""`lorafleet tenant`, `member`, `token`, `grant`, `reservation` and `audit`: administration of tenants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import typer

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.commands import Format, Output, Server, Tenant
from lorafleet.commands.clients import connect
from lorafleet.commands.connection import ServerCommands
from lorafleet.commands.options import grouped
from lorafleet.terminal import TIME_FORMAT, say, stdout_console

tenant_app = typer.Typer(cls=ServerCommands, help="Tenants, their fair share and limits.", no_args_is_help=True)
member_app = typer.Typer(cls=ServerCommands, help="Members of a tenant and their roles.", no_args_is_help=True)
token_app = typer.Typer(cls=ServerCommands, help="API tokens of a tenant, for programs.", no_args_is_help=True)
grant_app = typer.Typer(cls=ServerCommands, help="Store prefixes that a tenant may read and write.", no_args_is_help=True)
reservation_app = typer.Typer(cls=ServerCommands, help="GPUs reserved for a tenant.", no_args_is_help=True)
audit_app = typer.Typer(cls=ServerCommands, help="The audit log of writes and denied writes.", no_args_is_help=True)

Principal = Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Such as oidc:ada@example.com or cert:NAME.", show_default=False)]


class RoleArgument(StrEnum):
    """Roles of members and tokens; each includes the permissions of those before it."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"
    ADMIN = "admin"


RoleName = Annotated[RoleArgument, typer.Argument(metavar="ROLE", help="viewer, submitter, operator or admin.", show_default=False)]
Prefix = Annotated[
    str, typer.Argument(metavar="PREFIX", help="s3://bucket/folder; a trailing * matches the rest of a name.", show_default=False)
]
TENANT = ("name", "display_name", "weight", "max_gpus", "max_running_jobs", "max_queued_jobs", "store_credentials", "is_isolated", "etag")
RETENTION = ("adapter_keep_newest", "adapter_keep_days")
MEMBER = ("principal", "role", "create_time")
TOKEN = ("name", "display_name", "role", "created_by", "expire_time", "revoke_time")
GRANT = ("prefix", "may_write", "create_time")
RESERVATION = ("name", "gpus", "start_time", "end_time")
WHOLE = ("role", "code", "weight", "gpus", "may_write")
TIMES = ("time", "create_time", "expire_time", "revoke_time", "start_time", "end_time")
LEAVES_FIRST = (  # from a narrow terminal: the last of them first
    "max_gpus",
    "max_running_jobs",
    "end_time",
    "start_time",
    "expire_time",
    "revoke_time",
    "create_time",
    "method",
    "resource",
    "is_isolated",
    "max_queued_jobs",
    "display_name",
    "reason",
    "created_by",
    "store_credentials",
    "peer",
    "etag",
)
EVENT = ("time", "principal", "method", "resource", "peer", "code", "reason")


def _tenant(name: str, fields: dict[str, Any]) -> Any:
    from lorafleet.v1 import access_service_pb2 as pb

    return pb.Tenant(name=f"tenants/{name}", **fields)


def _role(name: RoleArgument) -> Any:
    from lorafleet.v1 import access_service_pb2 as pb

    return pb.Role.Value(f"ROLE_{name.upper()}")


def _aware(time: datetime) -> datetime:
    """A time of the command line is in UTC."""
    return time.replace(tzinfo=UTC)


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else _aware(time)


TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="Id of the tenant.", show_default=False)]
ReservationId = Annotated[str, typer.Argument(metavar="RESERVATION", help="Id of the reservation.", show_default=False)]


def _option(help: str, **more: Any) -> Any:
    return typer.Option(help=help, show_default=False, **more)


@dataclass(frozen=True, kw_only=True)
class TenantFields:
    """What can be set of a tenant. None is left as it is; a new tenant's limits are unlimited then."""

    display_name: Annotated[str | None, _option("Name for people.")] = None
    weight: Annotated[float | None, _option("Weight of its fair share, compared with other tenants.", min=0)] = None
    max_gpus: Annotated[float | None, _option("Maximum GPUs of its running jobs.", min=0)] = None
    max_running_jobs: Annotated[int | None, _option("Maximum running jobs.", min=0)] = None
    max_queued_jobs: Annotated[int | None, _option("Maximum waiting jobs.", min=0)] = None
    max_storage_bytes: Annotated[int | None, _option("Maximum bytes of its artifacts.", min=0)] = None
    max_requests_per_s: Annotated[float | None, _option("Maximum calls per second.", min=0)] = None
    adapter_keep_newest: Annotated[int | None, _option("Newest versions that stay of adapters without a rule of their own.", min=0)] = None
    adapter_keep_days: Annotated[int | None, _option("Days for which versions of these stay.", min=0)] = None
    store_credentials: Annotated[str | None, _option("Profile of its own store credentials; '' removes them.", metavar="NAME")] = None
    isolated: Annotated[
        bool | None, typer.Option("--isolated/--not-isolated", help="Never share a process with another tenant.", show_default=False)
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """The fields that are set, by the proto's names."""
        fields = {"is_isolated" if name == "isolated" else name: value for name, value in asdict(self).items()}
        return {name: value for name, value in fields.items() if value is not None}


@tenant_app.command("create")
@grouped
def create_tenant(name: TenantId, fields: TenantFields, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER) -> None:
    """Create a tenant. Limits that are not given are unlimited."""
    with connect(server, name) as there:
        _print_one(there.create_tenant(name, _tenant(name, fields.given)), TENANT, output)


@tenant_app.command("update")
@grouped
def update_tenant(
    name: TenantId,
    fields: TenantFields,
    no_limit: Annotated[list[str] | None, typer.Option(metavar="LIMIT", help="Remove a limit, such as max_gpus; repeatable.")] = None,
    etag: Annotated[str, typer.Option(help="Fail if the tenant has changed since it had this etag.")] = "",
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Change the given fields of a tenant and no others."""
    given = fields.given
    with connect(server, name) as there:
        _print_one(there.update_tenant(_tenant(name, {**given, "etag": etag}), [*given, *(no_limit or ())]), TENANT, output)


@tenant_app.command("get")
def get_tenant(
    name: TenantId,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show a tenant, its numbers of queued and running jobs, and the bytes that its adapters take."""
    with connect(server, name) as there:
        _print_one(
            there.get_tenant(), (*TENANT, "num_queued_jobs", "num_running_jobs", "stored_bytes", "max_storage_bytes", *RETENTION), output
        )


@tenant_app.command("list")
def list_tenants(output: Output = Format.TABLE, server: Server = DEFAULT_SERVER) -> None:
    """List the tenants that you are a member of, or all if you administer the service."""
    with connect(server, DEFAULT_TENANT) as there:
        _print(list(there.list_tenants()), TENANT, output)


@member_app.command("set")
def set_member(
    principal: Principal, role: RoleName, output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Add a member, or change a member's role."""
    with connect(server, tenant) as there:
        _print_one(there.set_member(principal, _role(role)), MEMBER, output)


@member_app.command("list")
def list_members(output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """List the members."""
    with connect(server, tenant) as there:
        _print(list(there.list_members()), MEMBER, output)


@member_app.command("remove")
def remove_member(principal: Principal, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Remove a member."""
    with connect(server, tenant) as there:
        there.remove_member(principal)


@token_app.command("create")
def create_token(
    role: RoleName,
    display_name: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[datetime | None, typer.Option(help="Time of expiry, in UTC; unset: never.", show_default=False)] = None,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Create a token. Its secret is printed once and cannot be shown again."""
    with connect(server, tenant) as there:
        made = there.create_api_token(_role(role), display_name=display_name, expire_time=_utc(expires))
    if output is Format.TABLE:
        say(made.secret)
    else:
        _print_one(made, (), output)


@token_app.command("list")
def list_tokens(output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """List the tokens, without their secrets."""
    with connect(server, tenant) as there:
        _print(list(there.list_api_tokens()), TOKEN, output)


@token_app.command("revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Id of the token.", show_default=False)],
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Revoke a token for good."""
    with connect(server, tenant) as there:
        _print_one(there.revoke_api_token(token), TOKEN, output)


@grant_app.command("add")
def add_grant(
    prefix: Prefix,
    write: Annotated[bool, typer.Option("--write", help="Allow writing as well.")] = False,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Let a tenant read under a prefix, and write with --write."""
    with connect(server, tenant) as there:
        _print_one(there.add_grant(prefix, may_write=write), GRANT, output)


@grant_app.command("list")
def list_grants(output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """List the grants."""
    with connect(server, tenant) as there:
        _print(list(there.list_grants()), GRANT, output)


@grant_app.command("remove")
def remove_grant(prefix: Prefix, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """Remove a grant; jobs already accepted continue."""
    with connect(server, tenant) as there:
        there.remove_grant(prefix)


@reservation_app.command("create")
def create_reservation(
    reservation: ReservationId,
    gpus: Annotated[float, typer.Option(min=0, help="Number of GPUs.")],
    start: Annotated[datetime, typer.Option(help="Begin, in UTC.")],
    end: Annotated[datetime, typer.Option(help="End, in UTC.")],
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Reserve GPUs for a tenant during a window."""
    with connect(server, tenant) as there:
        _print_one(there.create_reservation(reservation, gpus=gpus, start_time=_aware(start), end_time=_aware(end)), RESERVATION, output)


@reservation_app.command("list")
def list_reservations(output: Output = Format.TABLE, server: Server = DEFAULT_SERVER, tenant: Tenant = DEFAULT_TENANT) -> None:
    """List the reservations."""
    with connect(server, tenant) as there:
        _print(list(there.list_reservations()), RESERVATION, output)


@reservation_app.command("delete")
def delete_reservation(
    reservation: ReservationId,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Release reserved GPUs."""
    with connect(server, tenant) as there:
        there.delete_reservation(reservation)


@audit_app.command("list")
def list_audit(
    since: Annotated[datetime | None, typer.Option(help="Earliest time, in UTC.", show_default=False)] = None,
    until: Annotated[datetime | None, typer.Option(help="Latest time, in UTC.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number shown.")] = 100,
    output: Output = Format.TABLE,
    server: Server = DEFAULT_SERVER,
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """List writes and denied writes, newest first."""
    with connect(server, tenant) as there:
        _print(list(islice(there.list_audit_events(start_time=_utc(since), end_time=_utc(until)), limit)), EVENT, output)


def _print_one(message: Any, columns: Sequence[str], output: Format) -> None:
    """One resource, a line per field that is set."""
    from lorafleet import tables
    from lorafleet.commands.printing import print_plain

    row = _plain(message)
    print_plain(row, output)
    if output is Format.TABLE:
        stdout_console().print(tables.details((column, _cell(column, row)) for column in columns))


def _print(messages: Iterable[Any], columns: Sequence[str], output: Format) -> None:
    from lorafleet.commands.printing import print_plain

    found = list(messages)
    print_plain([_plain(message) for message in found], output)
    if output is Format.TABLE:
        stdout_console().print(_table(found, columns))


def _table(messages: Iterable[Any], columns: Sequence[str]) -> Any:
    from lorafleet import tables

    first, *others = columns  # the first is the one to copy
    rows = ([_cell(column, row) for column in columns] for row in map(_plain, messages))
    return tables.Table([tables.name(first.upper()), *map(_column, others)], rows)


def _column(name: str) -> Any:
    from lorafleet import tables

    heading, leaves = name.upper(), LEAVES_FIRST.index(name) + 1 if name in LEAVES_FIRST else 0
    if name in TIMES:
        return tables.value(heading, leaves=leaves)
    return tables.state(heading) if name in WHOLE else tables.prose(heading, leaves=leaves)


def _cell(column: str, row: dict[str, Any]) -> str:
    """For people: times to the second, and methods without their service, since no two have the same name."""
    text = str(row.get(column, ""))
    if column in TIMES and text:
        return datetime.fromisoformat(text).strftime(TIME_FORMAT)
    return text.rpartition("/")[2] if column == "method" else text


def _plain(message: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    return json_format.MessageToDict(message, preserving_proto_field_name=True)
