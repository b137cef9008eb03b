"""Makes one server's settings of all its options, or tells everything that is wrong with them. Starts nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lorafleet.errors import InvalidInput, LorafleetError
from service.access.settings import AccessSettings
from service.endpoints.addresses import parse_networks
from service.settings import serve_settings
from service.settings.given import GivenOptions
from service.settings.serve_options import (
    BackendKind,
    BackendOptions,
    CallLimits,
    CapacityOptions,
    ListenOptions,
    ReplicaOptions,
    ReplicaRole,
    StandbyOptions,
    StateOptions,
    TelemetryOptions,
    TimeoutOptions,
    WebhookOptions,
)
from service.settings.serve_settings import Settings
from service.store.credentials import CredentialsFile

if TYPE_CHECKING:
    from service.backends.kuberay.config import KuberayConfig

_NOWHERE = ("127.0.0.1", 0)  # stands for an address that is none, while the other options are looked at


def settings_of(
    given: GivenOptions,
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
) -> Settings:
    """Raises InvalidInput with all that is wrong, also with what was given before this."""
    host, port = given.checked("--listen", lambda: serve_settings.parse_listen(where.listen), _NOWHERE)
    metrics = given.checked("--metrics-listen", lambda: serve_settings.parse_metrics_listen(where.metrics_listen), None)
    kuberay = given.checked("--kuberay-config", lambda: serve_settings.load_kuberay(runs.backend, runs.kuberay_config), None)
    networks = given.checked("--webhook-allow", lambda: parse_networks(webhooks.webhook_allow or (), "--webhook-allow"), ())
    _check_alone(given, state, runs, capacity, access, telemetry)
    given.misfits(_access_faults(given, host, access, replica.role))
    given.misfits(_misfits(state, runs, capacity, standby, access, replica.role, kuberay))
    given.done()
    return Settings(
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
        role=replica.role,
        metrics_listen=metrics,
        otlp_endpoint=telemetry.otlp_endpoint,
        calls=calls,
        webhook_networks=networks,
    )


def _check_alone(
    given: GivenOptions,
    state: StateOptions,
    runs: BackendOptions,
    capacity: CapacityOptions,
    access: AccessSettings,
    telemetry: TelemetryOptions,
) -> None:
    """Options that are right or wrong whatever the others are."""
    given.checked("--database-url", lambda: serve_settings.parse_database_url(state.database_url), "")
    given.checked("--artifacts", lambda: serve_settings.parse_store("--artifacts", state.artifacts), "")
    given.checked("--cache", lambda: serve_settings.parse_store("--cache", state.cache), "")
    given.checked("--ray-address", lambda: serve_settings.parse_ray_address(runs.ray_address), "")
    given.checked("--isolate-tenant", lambda: serve_settings.parse_tenants(capacity.isolated_tenants), None)
    given.checked("--otlp-endpoint", lambda: serve_settings.parse_otlp_endpoint(telemetry.otlp_endpoint), "")
    given.checked("--store-credentials", lambda: CredentialsFile(access.store_credentials).profiles(), {})
    for flag, path in (
        ("--tls-cert", access.tls_cert),
        ("--tls-key", access.tls_key),
        ("--tls-client-ca", access.tls_client_ca),
        ("--report-tls-ca", access.report_tls_ca),
    ):
        given.checked(flag, lambda flag=flag, path=path: _check_file(flag, path), None)


def _check_file(flag: str, path: Path | None) -> None:
    """What is in it whoever uses it looks at."""
    if path is not None and not path.is_file():
        raise InvalidInput(f"{flag}: {path} cannot be read: {'it is no file' if path.exists() else 'no such file'}")


def _access_faults(given: GivenOptions, host: str, access: AccessSettings, role: ReplicaRole) -> Iterator[LorafleetError]:
    listen = given.checked("--report-listen", lambda: _report_host(access), None)
    yield from access.faults(*dict.fromkeys(each for each in (host, listen) if each))
    if role is not ReplicaRole.API and not given.is_bad("--role"):
        yield from access.report_faults(host)


def _report_host(access: AccessSettings) -> str | None:
    return serve_settings.parse_listen(access.report_listen, "--report-listen")[0] if access.report_listen else None


def _misfits(
    state: StateOptions,
    runs: BackendOptions,
    capacity: CapacityOptions,
    standby: StandbyOptions,
    access: AccessSettings,
    role: ReplicaRole,
    kuberay: "KuberayConfig | None",
) -> Iterator[LorafleetError]:
    yield from serve_settings.backend_faults(runs.backend, runs.kuberay_config, runs.ray_address, state.artifacts)
    yield from serve_settings.standby_faults(standby, capacity, runs.ray_address, kuberay)
    shares_backend = bool(runs.ray_address) or runs.backend is BackendKind.KUBERAY
    yield from serve_settings.replica_faults(state.database_url, role, shares_backend, state.artifacts, access.report_address)
