"""The command `lorafleet doctor`. Reads the settings that `lorafleet serve` reads; needs the server's packages for that part alone."""

import asyncio
import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet import DEFAULT_TENANT
from lorafleet.commands import ExitCode, given_credentials
from service.access.settings import AccessSettings
from service.options import grouped
from service.settings import BackendKind

if TYPE_CHECKING:
    from service.doctor.findings import Check, Finding


class DoctorFormat(StrEnum):
    """How the findings are printed."""

    TABLE = "table"
    JSON = "json"


_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


@grouped
def doctor(
    access: AccessSettings,
    server: Annotated[
        str, typer.Option("--server", envvar="LORAFLEET_SERVER", help="Check only this host:port, from the client's side.")
    ] = "",
    tenant: Annotated[str, typer.Option("--tenant", envvar="LORAFLEET_TENANT", help="The tenant to act in.")] = DEFAULT_TENANT,
    listen: Annotated[str, typer.Option(envvar="LORAFLEET_LISTEN", help="As for lorafleet serve.")] = "127.0.0.1:7600",
    metrics_listen: Annotated[str, typer.Option(envvar="LORAFLEET_METRICS_LISTEN", help="As for lorafleet serve.")] = "",
    state_dir: Annotated[Path, typer.Option(envvar="LORAFLEET_STATE_DIR", help="As for lorafleet serve.")] = Path("~/.lorafleet"),
    database_url: Annotated[str, typer.Option(envvar="LORAFLEET_DATABASE_URL", help="As for lorafleet serve.", show_default=False)] = "",
    artifacts: Annotated[str, typer.Option(envvar="LORAFLEET_ARTIFACTS", help="As for lorafleet serve.")] = "",
    cache: Annotated[str, typer.Option(envvar="LORAFLEET_CACHE", help="As for lorafleet serve.")] = "",
    ray_address: Annotated[str, typer.Option(envvar="LORAFLEET_RAY_ADDRESS", help="As for lorafleet serve.")] = "",
    backend: Annotated[BackendKind, typer.Option(envvar="LORAFLEET_BACKEND", help="As for lorafleet serve.")] = BackendKind.RAY,
    kuberay_config: Annotated[Path | None, typer.Option(envvar="LORAFLEET_KUBERAY_CONFIG", help="As for lorafleet serve.")] = None,
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
        from service.settings import default_artifacts, default_cache

        folder = state_dir.expanduser().resolve()
        artifacts_uri = (artifacts or default_artifacts(folder)).rstrip("/")
        checks = [
            *_local(folder, database_url, listen, metrics_listen),
            *_around(artifacts_uri, cache.rstrip("/") or default_cache(artifacts_uri), access.report_address),
            _backend(backend, kuberay_config, ray_address),
            *_access(access, listen),
        ]
        findings = asyncio.run(run(checks))
    _print(findings, output)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(ExitCode.ERROR)


def _local(folder: Path, database_url: str, listen: str, metrics_listen: str) -> "list[tuple[str, Check]]":
    from service.doctor import machine
    from service.doctor.databases import check_database

    url = database_url or f"sqlite:///{folder / 'lorafleet.db'}"
    ports = {"--listen": listen, "--metrics-listen": metrics_listen}
    return [
        ("database", lambda: check_database(url)),
        ("disk", lambda: machine.check_disk(folder)),
        *((option, lambda option=option, where=where: machine.check_port(option, where)) for option, where in ports.items() if where),
    ]


def _backend(backend: BackendKind, kuberay_config: Path | None, ray_address: str) -> "tuple[str, Check]":
    if backend is BackendKind.KUBERAY:
        from service.doctor.kubernetes import check_kubernetes

        return ("Kubernetes", lambda: check_kubernetes(kuberay_config))
    from service.backends.ray_jobs import ambient_token
    from service.doctor import machine

    return ("Ray", lambda: machine.check_ray(ray_address, ambient_token(os.environ)))


def _around(artifacts_uri: str, cache_uri: str, report_address: str) -> "list[tuple[str, Check]]":
    from service.doctor import machine
    from service.doctor.stores import check_store

    return [
        ("artifacts", lambda: check_store("artifacts", artifacts_uri)),
        ("cache", lambda: check_store("cache", cache_uri)),
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
