"""Checks the settings of `lorafleet serve` before anything starts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorafleet.errors import FailedPrecondition, InvalidInput, LorafleetError
from lorafleet.transport.addresses import split
from service.access.settings import AccessSettings
from service.core.resource_names import parse_tenant
from service.endpoints.addresses import Network
from service.settings.serve_options import (
    DATABASE_NAME,
    BackendKind,
    CallLimits,
    CapacityOptions,
    ReplicaRole,
    StandbyOptions,
    TimeoutOptions,
)

if TYPE_CHECKING:
    from service.backends.kuberay.config import KuberayConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One server's settings. An unset `ray_address` means a local Ray of our own."""

    host: str
    port: int  # 0: the one of last time if it is free, else any
    state_dir: Path
    artifacts_uri: str
    cache_uri: str
    access: AccessSettings = field(default_factory=AccessSettings)
    ray_address: str | None = None
    kuberay: "KuberayConfig | None" = None  # set: runs go to Kubernetes
    capacity: CapacityOptions = field(default_factory=CapacityOptions)
    standby: StandbyOptions = field(default_factory=StandbyOptions)
    timeouts: TimeoutOptions = field(default_factory=TimeoutOptions)
    # Replicas: several servers on one PostgreSQL.
    database_url: str | None = field(default=None, repr=False)  # it holds a password; unset: SQLite in the state directory
    role: ReplicaRole = ReplicaRole.ALL
    metrics_listen: tuple[str, int] | None = None  # unset: no side port
    otlp_endpoint: str = ""  # unset: no traces
    calls: CallLimits = field(default_factory=CallLimits)
    webhook_networks: tuple[Network, ...] = ()  # of tenants' webhooks, beside the public internet

    @property
    def database_path(self) -> Path:
        return self.state_dir / DATABASE_NAME


def parse_listen(listen: str, option: str = "--listen") -> tuple[str, int]:
    """Host and port of HOST:PORT. Raises InvalidInput. Whether it is safe to listen there, AccessSettings knows."""
    try:
        return split(listen)
    except ValueError:
        raise InvalidInput(f"{option}: {listen!r} is not HOST:PORT, as 127.0.0.1:7600 or [::1]:7600") from None


def parse_metrics_listen(listen: str) -> tuple[str, int] | None:
    """Host and port of HOST:PORT; None when unset. Raises InvalidInput. Any address will do: it shows numbers and tenant names alone."""
    return parse_listen(listen, "--metrics-listen") if listen else None


def parse_otlp_endpoint(endpoint: str) -> str:
    """The address of a collector; empty when unset. Raises InvalidInput."""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise InvalidInput(f"--otlp-endpoint: {endpoint!r} is not a URL, as http://127.0.0.1:4317")
    return endpoint


def parse_backend(backend: BackendKind, kuberay_config: Path | None, ray_address: str, artifacts: str) -> "KuberayConfig | None":
    """How runs go to Kubernetes; None: they do not. Raises InvalidInput with everything that is wrong in the file."""
    for fault in backend_faults(backend, kuberay_config, ray_address, artifacts):
        raise fault
    return load_kuberay(backend, kuberay_config)


def load_kuberay(backend: BackendKind, path: Path | None) -> "KuberayConfig | None":
    """None without a file, or where it is not for this backend. Raises InvalidInput with everything that is wrong in it."""
    if backend is not BackendKind.KUBERAY or path is None:
        return None
    from service.backends.kuberay.config import load

    return load(path)


def backend_faults(backend: BackendKind, kuberay_config: Path | None, ray_address: str, artifacts: str) -> Iterator[LorafleetError]:
    """Which of these options do not go together."""
    if backend is BackendKind.RAY:
        if kuberay_config is not None:
            yield InvalidInput("--kuberay-config is for --backend kuberay")
        return
    if ray_address:
        yield InvalidInput("--ray-address is for --backend ray; with --backend kuberay every run has a Ray of its own")
    if kuberay_config is None:
        yield InvalidInput("--backend kuberay: --kuberay-config must name the file that says how runs are started")
    if not artifacts.startswith("s3://"):
        yield InvalidInput("--backend kuberay: runs share no folder with this server; give --artifacts an s3:// URI")


def parse_database_url(url: str) -> str:
    """The URL of a database that servers can share; empty when unset. Raises InvalidInput."""
    if url:
        from service.db.engines import parse_url  # imports SQLAlchemy, which a server of its own needs later

        if parse_url(url).drivername != "postgresql":
            raise InvalidInput(
                "--database-url: SQLite needs none, it is in --state-dir; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
            )
    return url


def parse_store(option: str, uri: str) -> str:
    """The URI of a folder in a store; empty when unset. Raises InvalidInput."""
    if uri and not uri.startswith(("s3://", "file:///")):
        raise InvalidInput(f"{option}: {uri!r} is not the URI of a folder, as s3://bucket/folder or file:///folder")
    return uri


def parse_ray_address(address: str) -> str:
    """The address of Ray's Jobs API; empty when unset. Raises InvalidInput."""
    if address and not address.startswith(("http://", "https://")):
        raise InvalidInput(f"--ray-address: {address!r} is not a URL, as http://127.0.0.1:8265")
    return address


def parse_tenants(tenants: tuple[str, ...]) -> None:
    """Raises InvalidInput for one that none can be: it would isolate nobody."""
    for tenant in tenants:
        parse_tenant(f"tenants/{tenant}", "--isolate-tenant")


def check_replica(database_url: str, role: ReplicaRole, shares_backend: bool, artifacts: str, report_address: str) -> None:
    """What several servers must have in common. Raises InvalidInput (for a URL that is none) and FailedPrecondition."""
    parse_database_url(database_url)
    for fault in replica_faults(database_url, role, shares_backend, artifacts, report_address):
        raise fault


def replica_faults(
    database_url: str, role: ReplicaRole, shares_backend: bool, artifacts: str, report_address: str
) -> Iterator[LorafleetError]:
    """What several servers must have in common and these options do not give them."""
    if database_url:
        if not shares_backend:
            message = "--database-url: servers that share a database share a Ray too; name it by --ray-address (a local Ray has one owner)"
            yield FailedPrecondition(message, reason="LOCAL_RAY_NOT_SHARED")
        if not artifacts:
            message = "--database-url: servers that share a database share a store too; name it by --artifacts"
            yield FailedPrecondition(message, reason="STORE_NOT_SHARED")
    elif role is not ReplicaRole.ALL:
        message = f"--role {role}: the other half must see the same database, so --database-url must name a PostgreSQL"
        yield FailedPrecondition(message, reason="DATABASE_NOT_SHARED")
    if role is ReplicaRole.RECONCILE and not report_address:
        message = "--role reconcile answers no reports of runs; name the servers that do by --report-address"
        yield FailedPrecondition(message, reason="NO_REPORT_ADDRESS")


def standby_faults(
    standby: StandbyOptions, capacity: CapacityOptions, ray_address: str, kuberay: "KuberayConfig | None"
) -> Iterator[LorafleetError]:
    """Workers may stand by where they can be made to give way."""
    if not standby.standby_workers:
        return
    if kuberay is not None and kuberay.standing_cluster is None:
        yield InvalidInput("--standby-workers: with --backend kuberay every run has pods of its own; set standingCluster, or leave it out")
    if (ray_address or kuberay is not None) and capacity.capacity_cpus is None:
        message = (
            "--standby-workers: set --capacity-cpus (and --capacity-gpus) to what the cluster has, so that they give way to jobs in time"
        )
        yield InvalidInput(message)
