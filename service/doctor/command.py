"""Runs the checks of `lorafleet doctor`. Reads the settings that `lorafleet serve` reads; needs the server's packages for that part
alone."""

import asyncio
import os
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorafleet import DEFAULT_TENANT
from lorafleet.commands import ExitCode, Tenant
from lorafleet.commands.connection import chosen, given_credentials
from service.access.settings import AccessSettings
from service.settings.layered import given, layered
from service.settings.serve_options import BackendKind, BackendOptions, ConfigFile, ListenOptions, StandbyOptions, StateOptions

if TYPE_CHECKING:
    from lorafleet.tables import Table
    from service.doctor.findings import Check, Finding


class DoctorFormat(StrEnum):
    """How the findings are printed."""

    TABLE = "table"
    JSON = "json"


_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


@layered
def doctor(
    where: ListenOptions,
    state: StateOptions,
    runs: BackendOptions,
    standby: StandbyOptions,
    access: AccessSettings,
    config: ConfigFile = None,
    server: Annotated[
        str, typer.Option("--server", envvar="LORAFLEET_SERVER", help="Check only this host:port, from the client's side.", callback=chosen)
    ] = "",
    tenant: Tenant = DEFAULT_TENANT,
    output: Annotated[DoctorFormat, typer.Option("--output", "-o", help="Output format.")] = DoctorFormat.TABLE,
) -> None:
    """Check everything that a server depends on, or with --server the server itself from here; exit code 1 if a check fails.

    Use the options, environment or file of `lorafleet serve`. Test objects are written to the store and deleted; nothing else is changed.
    """
    given().done()
    if server:
        from lorafleet.credentials import Credentials
        from service.doctor.client import check_server

        findings = check_server(server, tenant, Credentials(**{**_certificate(access), **given_credentials}))
    else:
        from service.doctor.findings import run

        checks = [
            *_local(where, state),
            *_around(state, access.report_address),
            _backend(runs),
            *_standby(runs, standby),
            *_access(access, where.listen),
        ]
        findings = asyncio.run(run(checks))
    _print(findings, output)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(ExitCode.ERROR)


def _certificate(access: AccessSettings) -> dict[str, Any]:
    """Behind `doctor` the options of a certificate are the server's; with --server they are the caller's own."""
    pair = {"tls_cert": access.tls_cert, "tls_key": access.tls_key}
    return {name: path for name, path in pair.items() if path is not None}


def _local(where: ListenOptions, state: StateOptions) -> "list[tuple[str, Check]]":
    from service.doctor import machine
    from service.doctor.databases import check_database

    ports = {"--listen": where.listen, "--metrics-listen": where.metrics_listen}
    return [
        ("database", lambda: check_database(state.url)),
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


def _standby(runs: BackendOptions, standby: StandbyOptions) -> "list[tuple[str, Check]]":
    from service.doctor import machine

    if runs.ray_address or runs.backend is BackendKind.KUBERAY:
        return []  # their memory is elsewhere
    return [("standby", lambda: machine.check_standby(standby.num_groups(is_local=True), standby.standby_memory_gib))]


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
    from lorafleet.terminal import say_json, stdout_console

    if output is DoctorFormat.JSON:
        say_json([finding.fields() for finding in findings])
    else:
        stdout_console().print(table_of(findings))


def table_of(findings: "Sequence[Finding]") -> "Table":
    from rich.text import Text

    from lorafleet import tables

    columns = [tables.name("CHECK"), tables.state("STATE"), tables.prose("WHAT WAS FOUND"), tables.prose("WHAT TO DO")]
    states = [Text(finding.state.upper(), style=_COLOURS[finding.state]) for finding in findings]
    rows = ((finding.check, state, finding.message, finding.todo) for finding, state in zip(findings, states, strict=True))
    return tables.Table(columns, rows)
