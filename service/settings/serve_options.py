"""Declares the options of `lorafleet serve` in groups, each with its environment variable, its help and its default. `doctor` takes some
too."""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lorafleet.contract.layout import join
from service.access.settings import AccessSettings
from service.observability.log_lines import LogFormat, LogLevel


class BackendKind(StrEnum):
    """Where runs execute."""

    RAY = "ray"  # as jobs of one Ray
    KUBERAY = "kuberay"  # each as a RayJob on Kubernetes


class ReplicaRole(StrEnum):
    """What a replica does: answer calls, run the loops, or both."""

    API = "api"
    RECONCILE = "reconcile"
    ALL = "all"


DATABASE_NAME = "lorafleet.db"  # in the state directory


def _option(name: str, help: str, *, panel: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", envvar=f"LORAFLEET_{name.replace('-', '_').upper()}", help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """Where the server listens."""

    listen: Annotated[str, _option("listen", "HOST:PORT; port 0 takes a free one.", panel="Listening")] = "127.0.0.1:7600"
    metrics_listen: Annotated[
        str,
        _option(
            "metrics-listen",
            "HOST:PORT for /healthz/live, /healthz/ready and /metrics over plain, unauthenticated HTTP: shows counts, times and "
            "tenant names; unset: off.",
            panel="Listening",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class DatabaseOptions:
    """Where the server keeps what it knows."""

    state_dir: Annotated[Path, _option("state-dir", "Folder of the database and the local Ray.", panel="State")] = Path("~/.lorafleet")
    database_url: Annotated[
        str,
        _option(
            "database-url",
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, which several servers may share; unset: SQLite in the state directory.",
            panel="State",
            show_default=False,
        ),
    ] = field(default="", repr=False)  # it holds a password

    @property
    def folder(self) -> Path:
        return self.state_dir.expanduser().resolve()

    @property
    def url(self) -> str:
        """Of the database, also of the one that needs no URL."""
        return self.database_url or f"sqlite:///{self.folder / DATABASE_NAME}"


@dataclass(frozen=True, kw_only=True)
class StateOptions(DatabaseOptions):
    """The same, and where its runs keep what they write."""

    artifacts: Annotated[
        str, _option("artifacts", "s3:// or file:// folder that jobs write to; unset: in the state directory.", panel="State")
    ] = ""
    cache: Annotated[
        str, _option("cache", "s3:// or file:// folder of cached latents and text embeddings; unset: in --artifacts.", panel="State")
    ] = ""

    @property
    def artifacts_uri(self) -> str:
        return (self.artifacts or f"file://{self.folder / 'artifacts'}").rstrip("/")

    @property
    def cache_uri(self) -> str:
        return self.cache.rstrip("/") or join(self.artifacts_uri, "cache")


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Where runs execute."""

    backend: Annotated[
        BackendKind, _option("backend", "Where runs execute: as jobs on a Ray, or as RayJobs on Kubernetes.", panel="Runs")
    ] = BackendKind.RAY
    ray_address: Annotated[
        str, _option("ray-address", "http:// address of the Jobs API of an existing Ray; unset: start a local one.", panel="Runs")
    ] = ""
    kuberay_config: Annotated[
        Path | None, _option("kuberay-config", "YAML file that configures runs on Kubernetes; for --backend kuberay.", panel="Runs")
    ] = None


@dataclass(frozen=True, kw_only=True)
class CapacityOptions:
    """How much runs at once, and what trains together."""

    max_running_runs: Annotated[int, _option("max-running-runs", "Maximum number of active runs.", panel="Capacity", min=1)] = 1
    capacity_gpus: Annotated[
        float | None, _option("capacity-gpus", "Total GPUs for runs; unset: the local Ray's, else not counted.", panel="Capacity", min=0)
    ] = None
    capacity_cpus: Annotated[
        float | None, _option("capacity-cpus", "Total CPUs for runs; unset: the local Ray's, else not counted.", panel="Capacity", min=0)
    ] = None
    max_pack_size: Annotated[
        int, _option("max-pack-size", "Maximum number of styles that train together in one run.", panel="Capacity", min=1)
    ] = 16
    worker_memory_gib: Annotated[
        float | None,
        _option(
            "worker-memory-gib",
            "Maximum memory of a pack on one worker, by the planner's estimate; unset: what its spec reserves, else unlimited.",
            panel="Capacity",
            min=0.1,
        ),
    ] = None
    isolate_tenant: Annotated[
        list[str] | None,
        _option(
            "isolate-tenant",
            "Tenant whose jobs never share a run or a warm worker with other tenants, whatever their specs say; repeatable.",
            panel="Capacity",
        ),
    ] = None

    @property
    def isolated_tenants(self) -> tuple[str, ...]:
        return tuple(self.isolate_tenant or ())


@dataclass(frozen=True, kw_only=True)
class StandbyOptions:
    """Workers that stand by for a first job."""

    standby_workers: Annotated[
        int | None,
        _option(
            "standby-workers",
            "Workers that an idle server keeps up for a first job, with the stack imported; unset: 1 on a local Ray, else 0.",
            panel="Capacity",
            min=0,
            max=64,
        ),
    ] = None
    standby_memory_gib: Annotated[
        float,
        _option(
            "standby-memory-gib",
            "Maximum memory of a standby worker; on a local Ray none comes up while less is free.",
            panel="Capacity",
            min=0.1,
        ),
    ] = 2.0

    def num_groups(self, *, is_local: bool) -> int:
        return int(is_local) if self.standby_workers is None else self.standby_workers


@dataclass(frozen=True, kw_only=True)
class TimeoutOptions:
    """How long a run may take for what."""

    warm_idle_s: Annotated[
        float, _option("warm-idle-s", "Seconds that workers stay warm for another run; 0: never.", panel="Timeouts", min=0)
    ] = 60.0
    grace_period_s: Annotated[
        float, _option("grace-period-s", "Seconds that a stopping run has to save its work.", panel="Timeouts", min=0)
    ] = 120.0
    heartbeat_timeout_s: Annotated[
        float,
        _option("heartbeat-timeout-s", "Seconds without a report after which a training run counts as lost.", panel="Timeouts", min=5),
    ] = 60.0
    start_timeout_s: Annotated[
        float,
        _option(
            "start-timeout-s",
            "Seconds without a report after which a run that is not training yet counts as lost.",
            panel="Timeouts",
            min=5,
        ),
    ] = 900.0
    start_deadline_s: Annotated[
        float,
        _option(
            "start-deadline-s", "Seconds that a run has until its first training step, with or without reports.", panel="Timeouts", min=5
        ),
    ] = 7200.0


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """What one replica takes of its callers."""

    max_requests_per_s: Annotated[
        float, _option("max-requests-per-s", "Calls per second of a tenant without its own limit; 0: unlimited.", panel="Calls", min=0)
    ] = 500.0
    max_streams: Annotated[int, _option("max-streams", "Maximum open watches and followed logs on this server.", panel="Calls", min=1)] = (
        5_000
    )
    max_streams_per_tenant: Annotated[int, _option("max-streams-per-tenant", "Maximum open streams per tenant.", panel="Calls", min=1)] = (
        2_000
    )
    slow_reader_s: Annotated[
        float, _option("slow-reader-s", "Seconds after which a stream that its client does not read ends.", panel="Calls", min=1)
    ] = 30.0

    slow_writer_s: Annotated[float, _option("slow-writer-s", "Seconds that the message of a call has to arrive.", panel="Calls", min=1)] = (
        30.0
    )
    max_unknown_calls: Annotated[
        int,
        _option(
            "max-unknown-calls",
            "Maximum calls at a time whose caller is not known yet, and as many watches of health; beyond it whoever has most loses one.",
            panel="Calls",
            min=1,
        ),
    ] = 1_000
    max_unknown_calls_per_address: Annotated[
        int,
        _option(
            "max-unknown-calls-per-address", "The same of one address; all callers behind one balancer share one.", panel="Calls", min=1
        ),
    ] = 200


@dataclass(frozen=True, kw_only=True)
class WebhookOptions:
    """Whom the server tells what happens."""

    webhook_allow: Annotated[
        list[str] | None,
        _option(
            "webhook-allow",
            "Network, such as 10.1.0.0/16, in which tenants' webhooks may lie beside the public internet, over http:// too; repeatable.",
            panel="Webhooks",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TelemetryOptions:
    """What the server tells of itself."""

    otlp_endpoint: Annotated[
        str,
        _option(
            "otlp-endpoint",
            "http:// or https:// address of an OpenTelemetry collector (OTLP over gRPC) for traces, also of runs; unset: off.",
            panel="Logs and traces",
        ),
    ] = ""
    log_level: Annotated[LogLevel, _option("log-level", "Minimum level of log lines on stderr.", panel="Logs and traces")] = LogLevel.INFO
    log_format: Annotated[LogFormat, _option("log-format", "Text, or one JSON object per line.", panel="Logs and traces")] = LogFormat.TEXT


@dataclass(frozen=True, kw_only=True)
class ReplicaOptions:
    """Which part of the service this server is."""

    role: Annotated[ReplicaRole, _option("role", "Serve calls, run the loops, or both.", panel="Replicas")] = ReplicaRole.ALL
    address_file: Annotated[
        Path | None, _option("address-file", "File to write the address to once the server listens.", panel="Listening")
    ] = None


ConfigFile = Annotated[
    Path | None,
    _option("config", "YAML file of options, by their names without dashes; flags and environment count before it.", panel="Settings"),
]
GROUPS = (
    ListenOptions,
    StateOptions,
    BackendOptions,
    CapacityOptions,
    StandbyOptions,
    TimeoutOptions,
    AccessSettings,
    CallLimits,
    WebhookOptions,
    TelemetryOptions,
    ReplicaOptions,
)
NAMES = tuple(each.name.replace("_", "-") for group in GROUPS for each in fields(group))  # without dashes: the keys of a file
SECRETS = frozenset(each.name for group in GROUPS for each in fields(group) if not each.repr)
