"""Turns options into settings and serves: the command `lorafleet serve`."""

import asyncio
import gc
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from lorafleet import state_files
from lorafleet.terminal import say
from service.access.settings import AccessSettings
from service.observability.log_lines import set_up
from service.settings import effective
from service.settings.layered import given, layered
from service.settings.serve_options import (
    BackendOptions,
    CallLimits,
    CapacityOptions,
    ConfigFile,
    ListenOptions,
    ReplicaOptions,
    StandbyOptions,
    StateOptions,
    TelemetryOptions,
    TimeoutOptions,
    WebhookOptions,
)
from service.settings.serve_settings import Settings
from service.settings.whole_settings import settings_of


@layered
def serve(
    where: ListenOptions,
    state: StateOptions,
    runs: BackendOptions,
    capacity: CapacityOptions,
    standby: StandbyOptions,
    timeouts: TimeoutOptions,
    access: AccessSettings,
    calls: CallLimits,
    webhooks: WebhookOptions,
    telemetry: TelemetryOptions,
    replica: ReplicaOptions,
    config: ConfigFile = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings and where each comes from, without passwords; start nothing.")
    ] = False,
) -> None:
    """Serve the control plane: gRPC API, queue, and runs on Ray or Kubernetes. Ctrl-C shuts it down cleanly."""
    groups = (where, state, runs, capacity, standby, timeouts, access, calls, webhooks, telemetry, replica)
    settings = settings_of(given(), *groups)
    if print_config:
        _print(groups)
        return
    set_up(telemetry.log_level, telemetry.log_format)
    _run(settings, replica.address_file)


def _print(groups: Sequence[Any]) -> None:
    values = {each.name.replace("_", "-"): getattr(group, each.name) for group in groups for each in fields(group)}
    say("\n".join(effective.lines(values, given())))


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
