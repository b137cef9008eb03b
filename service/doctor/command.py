"""The command `lorafleet doctor`. Reads the settings that `lorafleet serve` reads; needs the server's packages for that part alone."""

import asyncio
import json
import os
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet import DEFAULT_TENANT
from lorafleet.commands import ExitCode, given_credentials
from lorafleet.commands.options import grouped
from service.access.settings import AccessSettings
from service.serve_options import BackendKind, BackendOptions, ListenOptions, StateOptions
from service.settings import DATABASE_NAME

if TYPE_CHECKING:
    from service.doctor.findings import Check, Finding


class DoctorFormat(StrEnum):
    """How the findings are printed."""

    TABLE = "table"
    JSON = "json"


_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


@grouped
def doctor(
    where: ListenOptions,
    state: StateOptions,
    runs: BackendOptions,
    access: AccessSettings,
    server: Annotated[
        str, typer.Option("--server", envvar="LORAFLEET_SERVER", help="Check only this host:port, from the client's side.")
    ] = "",
    tenant: Annotated[str, typer.Option("--tenant", envvar="LORAFLEET_TENANT", help="The tenant to act in.")] = DEFAULT_TENANT,
    output: Annotated[DoctorFormat, typer.Option("--output", "-o", help="Output format.")] = DoctorFormat.TABLE,
) -> None:
    """Check everything that a server depends on, or with --server the server itself from here; exit code 1 if a check fails.

    Use the options or environment of `lorafleet serve`. Test objects are written to the store and deleted; nothing else is changed.
    """
    if server:
        from lorafleet.credentials import Credentials
        from service.doctor.client import check_server

        findings = check_server(server, tenant, Credentials(**given_credentials))
    else:
        from service.doctor.findings import run

        checks = [
            *_local(where, state),
            *_around(state, access.report_address),
            _backend(runs),
            *_access(access, where.listen),
        ]
        findings = asyncio.run(run(checks))
    _print(findings, output)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(ExitCode.ERROR)


def _local(where: ListenOptions, state: StateOptions) -> "list[tuple[str, Check]]":
    from service.doctor import machine
    from service.doctor.databases import check_database

    url = state.database_url or f"sqlite:///{state.folder / DATABASE_NAME}"
    ports = {"--listen": where.listen, "--metrics-listen": where.metrics_listen}
    return [
        ("database", lambda: check_database(url)),
        ("disk", lambda: machine.check_disk(state.folder)),
        *((option, lambda option=option, port=port: machine.check_port(option, port)) for option, port in ports.items() if port),
    ]


def _backend(runs: BackendOptions) -> "tuple[str, Check]":
    if runs.backend is BackendKind.KUBERAY:
        from service.doctor.kubernetes import check_kubernetes

        return ("Kubernetes", lambda: check_kubernetes(runs.kuberay_config))
    from service.backends.ray_jobs import ambient_token
    from service.doctor import machine

    return ("Ray", lambda: machine.check_ray(runs.ray_address, ambient_token(os.environ)))


def _around(state: StateOptions, report_address: str) -> "list[tuple[str, Check]]":
    from service.doctor import machine
    from service.doctor.stores import check_store

    return [
        ("artifacts", lambda: check_store("artifacts", state.artifacts_uri)),
        ("cache", lambda: check_store("cache", state.cache_uri)),
        ("report address", lambda: machine.check_report_address(report_address)),
    ]


def _access(access: AccessSettings, listen: str) -> "list[tuple[str, Check]]":
    from service.doctor import machine

    return [
        ("access", lambda: machine.check_access(access, listen)),
        ("TLS", lambda: machine.check_certificate(access.tls_cert, access.report_address or listen)),
        ("OIDC", lambda: machine.check_keys(access.oidc_jwks)),
    ]


def _print(findings: "Sequence[Finding]", output: DoctorFormat) -> None:
    if output is DoctorFormat.JSON:
        typer.echo(json.dumps([finding.fields() for finding in findings], indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    from lorafleet.commands import stdout_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("CHECK", "STATE", "WHAT WAS FOUND", "WHAT TO DO"):
        table.add_column(heading, overflow="fold", no_wrap=heading in {"CHECK", "STATE"})
    for finding in findings:
        state = Text(finding.state.upper(), style=_COLOURS[finding.state])
        table.add_row(finding.check, state, Text(finding.message), Text(finding.todo))
    stdout_console().print(table)
