"""Checks the settings of `lorafleet serve` before anything starts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorafleet.errors import FailedPrecondition, InvalidInput
from lorafleet.transport.addresses import split
from service.access.settings import AccessSettings
from service.settings.serve_options import BackendKind, CallLimits, CapacityOptions, Role, StandbyOptions, TimeoutOptions

if TYPE_CHECKING:
    from service.backends.kuberay.config import KuberayConfig

DATABASE_NAME = "lorafleet.db"  # in the state directory


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
    role: Role = Role.ALL
    metrics_listen: tuple[str, int] | None = None  # unset: no side port
    otlp_endpoint: str = ""  # unset: no traces
    calls: CallLimits = field(default_factory=CallLimits)

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
    if backend is BackendKind.RAY:
        if kuberay_config is not None:
            raise InvalidInput("--kuberay-config is for --backend kuberay")
        return None
    if ray_address:
        raise InvalidInput("--ray-address is for --backend ray; with --backend kuberay every run has a Ray of its own")
    if kuberay_config is None:
        raise InvalidInput("--backend kuberay: --kuberay-config must name the file that says how runs are started")
    if not artifacts.startswith("s3://"):
        raise InvalidInput("--backend kuberay: runs share no folder with this server; give --artifacts an s3:// URI")
    from service.backends.kuberay.config import load

    return load(kuberay_config)


def check_replica(database_url: str, role: Role, shares_backend: bool, artifacts: str, report_address: str) -> None:
    """What several servers must have in common. Raises InvalidInput (for a URL that is none) and FailedPrecondition."""
    if database_url:
        from service.db.engines import parse_url  # imports SQLAlchemy, which a server of its own needs later

        if parse_url(database_url).drivername != "postgresql":
            raise InvalidInput(
                "--database-url: SQLite needs none, it is in --state-dir; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
            )
        if not shares_backend:
            message = "--database-url: servers that share a database share a Ray too; name it by --ray-address (a local Ray has one owner)"
            raise FailedPrecondition(message, reason="LOCAL_RAY_NOT_SHARED")
        if not artifacts:
            message = "--database-url: servers that share a database share a store too; name it by --artifacts"
            raise FailedPrecondition(message, reason="STORE_NOT_SHARED")
    elif role is not Role.ALL:
        message = f"--role {role}: the other half must see the same database, so --database-url must name a PostgreSQL"
        raise FailedPrecondition(message, reason="DATABASE_NOT_SHARED")
    if role is Role.RECONCILE and not report_address:
        message = "--role reconcile answers no reports of runs; name the servers that do by --report-address"
        raise FailedPrecondition(message, reason="NO_REPORT_ADDRESS")


def check_standby(standby: StandbyOptions, capacity: CapacityOptions, ray_address: str, kuberay: "KuberayConfig | None") -> None:
    """Workers may stand by where they can be made to give way. Raises InvalidInput."""
    if not standby.standby_workers:
        return
    if kuberay is not None and kuberay.standing_cluster is None:
        raise InvalidInput("--standby-workers: with --backend kuberay every run has pods of its own; set standingCluster, or leave it out")
    if (ray_address or kuberay is not None) and capacity.capacity_cpus is None:
        message = (
            "--standby-workers: set --capacity-cpus (and --capacity-gpus) to what the cluster has, so that they give way to jobs in time"
        )
        raise InvalidInput(message)
