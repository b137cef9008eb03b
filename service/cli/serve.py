"""Turns options into settings and serves: the command `lorafleet serve`."""

import asyncio
import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafleet import state_files
from lorafleet.commands.options import grouped
from lorafleet.terminal import say
from service.access.settings import AccessSettings
from service.observability.log_lines import set_up
from service.settings.serve_options import (
    BackendOptions,
    CallLimits,
    CapacityOptions,
    ListenOptions,
    Role,
    StandbyOptions,
    StateOptions,
    TelemetryOptions,
    TimeoutOptions,
)
from service.settings.serve_settings import (
    Settings,
    check_replica,
    check_standby,
    parse_backend,
    parse_listen,
    parse_metrics_listen,
    parse_otlp_endpoint,
)
from service.store.credentials import CredentialsFile


@grouped
def serve(
    where: ListenOptions,
    state: StateOptions,
    runs: BackendOptions,
    capacity: CapacityOptions,
    standby: StandbyOptions,
    timeouts: TimeoutOptions,
    access: AccessSettings,
    calls: CallLimits,
    telemetry: TelemetryOptions,
    role: Annotated[Role, typer.Option(envvar="LORAFLEET_ROLE", help="Serve calls, run the loops, or both.")] = Role.ALL,
    address_file: Annotated[
        Path | None, typer.Option(envvar="LORAFLEET_ADDRESS_FILE", help="File to write the address to once the server listens.")
    ] = None,
) -> None:
    """Serve the control plane: gRPC API, queue, and runs on Ray or Kubernetes. Ctrl-C shuts it down cleanly."""
    set_up(telemetry.log_level, telemetry.log_format)
    host, port = parse_listen(where.listen)
    report_listen = parse_listen(access.report_listen, "--report-listen") if access.report_listen else None
    CredentialsFile(access.store_credentials).profiles()
    access.check(host, *(report_listen or ())[:1])
    kuberay = parse_backend(runs.backend, runs.kuberay_config, runs.ray_address, state.artifacts)
    check_standby(standby, capacity, runs.ray_address, kuberay)
    if role is not Role.API:
        access.check_report_address(host)
    check_replica(state.database_url, role, bool(runs.ray_address or kuberay), state.artifacts, access.report_address)
    settings = Settings(
        host=host,
        port=port,
        access=access,
        state_dir=state.folder,
        artifacts_uri=state.artifacts_uri,
        cache_uri=state.cache_uri,
        ray_address=runs.ray_address or None,
        kuberay=kuberay,
        capacity=capacity,
        standby=standby,
        timeouts=timeouts,
        database_url=state.database_url or None,
        role=role,
        metrics_listen=parse_metrics_listen(where.metrics_listen),
        otlp_endpoint=parse_otlp_endpoint(telemetry.otlp_endpoint),
        calls=calls,
    )
    _run(settings, address_file)


def _run(settings: Settings, address_file: Path | None) -> None:
    gc.disable()  # importing makes objects by the hundred thousand and no garbage: spares a tenth of the start
    from service.server.serving import serve  # after the cheap checks: it imports gRPC and SQLAlchemy

    gc.freeze()
    gc.enable()

    asyncio.run(serve(settings, lambda address: _announce(address, address_file)))


def _announce(address: str, address_file: Path | None) -> None:
    if address_file is not None:
        state_files.write(address_file, address)
    say(f"lorafleet is listening on {address}")
    sys.stdout.flush()
