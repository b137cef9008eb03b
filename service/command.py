"""The command `lorafleet serve`: options to settings."""

import asyncio
import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.access.settings import AccessSettings
from service.logs import LogFormat, LogLevel, set_up
from service.options import grouped
from service.settings import (
    BackendKind,
    CallLimits,
    Role,
    Settings,
    check_replica,
    default_artifacts,
    default_cache,
    parse_backend,
    parse_listen,
    parse_metrics_listen,
    parse_otlp_endpoint,
    parse_tenant_id,
)
from service.store_credentials import CredentialsFile


@grouped
def serve(
    access: AccessSettings,
    listen: Annotated[str, typer.Option(envvar="LORAFLEET_LISTEN", help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:7600",
    state_dir: Annotated[Path, typer.Option(envvar="LORAFLEET_STATE_DIR", help="Folder of the database and the local Ray.")] = Path(
        "~/.lorafleet"
    ),
    artifacts: Annotated[
        str, typer.Option(envvar="LORAFLEET_ARTIFACTS", help="s3:// or file:// folder that jobs write to; unset: in the state directory.")
    ] = "",
    cache: Annotated[
        str,
        typer.Option(
            envvar="LORAFLEET_CACHE", help="s3:// or file:// folder of cached latents and text embeddings; unset: in --artifacts."
        ),
    ] = "",
    ray_address: Annotated[
        str,
        typer.Option(envvar="LORAFLEET_RAY_ADDRESS", help="http:// address of the Jobs API of an existing Ray; unset: start a local one."),
    ] = "",
    backend: Annotated[
        BackendKind, typer.Option(envvar="LORAFLEET_BACKEND", help="Where runs execute: as jobs on a Ray, or as RayJobs on Kubernetes.")
    ] = BackendKind.RAY,
    kuberay_config: Annotated[
        Path | None,
        typer.Option(envvar="LORAFLEET_KUBERAY_CONFIG", help="YAML file that configures runs on Kubernetes; for --backend kuberay."),
    ] = None,
    database_url: Annotated[
        str,
        typer.Option(
            envvar="LORAFLEET_DATABASE_URL",
            help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, which several servers may share; unset: SQLite in the state directory.",
        ),
    ] = "",
    role: Annotated[Role, typer.Option(envvar="LORAFLEET_ROLE", help="Serve calls, run the loops, or both.")] = Role.ALL,
    max_running_runs: Annotated[int, typer.Option(envvar="LORAFLEET_MAX_RUNNING_RUNS", min=1, help="Maximum number of active runs.")] = 1,
    capacity_gpus: Annotated[
        float | None, typer.Option(envvar="LORAFLEET_CAPACITY_GPUS", min=0, help="Total GPUs for runs; unset: not counted.")
    ] = None,
    capacity_cpus: Annotated[
        float | None, typer.Option(envvar="LORAFLEET_CAPACITY_CPUS", min=0, help="Total CPUs for runs; unset: not counted.")
    ] = None,
    max_pack_size: Annotated[
        int, typer.Option(envvar="LORAFLEET_MAX_PACK_SIZE", min=1, help="Maximum number of styles that train together in one run.")
    ] = 16,
    worker_memory_gib: Annotated[
        float | None,
        typer.Option(
            envvar="LORAFLEET_WORKER_MEMORY_GIB",
            min=0.1,
            help="Maximum memory of a pack on one worker, by the planner's estimate; unset: what its spec reserves, else unlimited.",
        ),
    ] = None,
    isolate_tenant: Annotated[
        list[str] | None,
        typer.Option(
            envvar="LORAFLEET_ISOLATE_TENANT",
            help="Tenant whose jobs never share a run or a warm worker with other tenants, whatever their specs say; repeatable.",
        ),
    ] = None,
    warm_idle_s: Annotated[
        float, typer.Option(envvar="LORAFLEET_WARM_IDLE_S", min=0, help="Seconds that workers stay warm for another run; 0: never.")
    ] = 60.0,
    grace_period_s: Annotated[
        float, typer.Option(envvar="LORAFLEET_GRACE_PERIOD_S", min=0, help="Seconds that a stopping run has to save its work.")
    ] = 120.0,
    heartbeat_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="LORAFLEET_HEARTBEAT_TIMEOUT_S", min=5, help="Seconds without a report after which a training run counts as lost."
        ),
    ] = 60.0,
    start_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="LORAFLEET_START_TIMEOUT_S",
            min=5,
            help="Seconds without a report after which a run that is not training yet counts as lost.",
        ),
    ] = 900.0,
    start_deadline_s: Annotated[
        float,
        typer.Option(
            envvar="LORAFLEET_START_DEADLINE_S",
            min=5,
            help="Seconds that a run has until its first training step, with or without reports.",
        ),
    ] = 7200.0,
    address_file: Annotated[
        Path | None, typer.Option(envvar="LORAFLEET_ADDRESS_FILE", help="File to write the address to once the server listens.")
    ] = None,
    metrics_listen: Annotated[
        str,
        typer.Option(
            envvar="LORAFLEET_METRICS_LISTEN",
            help="HOST:PORT for /healthz/live, /healthz/ready and /metrics over plain, unauthenticated HTTP: shows counts, times and "
            "tenant names; unset: off.",
        ),
    ] = "",
    otlp_endpoint: Annotated[
        str,
        typer.Option(
            envvar="LORAFLEET_OTLP_ENDPOINT",
            help="http:// or https:// address of an OpenTelemetry collector (OTLP over gRPC) for traces, also of runs; unset: off.",
        ),
    ] = "",
    max_requests_per_s: Annotated[
        float,
        typer.Option(
            envvar="LORAFLEET_MAX_REQUESTS_PER_S", min=0, help="Calls per second of a tenant without its own limit; 0: unlimited."
        ),
    ] = CallLimits.max_requests_per_s,
    max_streams: Annotated[
        int, typer.Option(envvar="LORAFLEET_MAX_STREAMS", min=1, help="Maximum open watches and followed logs on this server.")
    ] = CallLimits.max_streams,
    max_streams_per_tenant: Annotated[
        int, typer.Option(envvar="LORAFLEET_MAX_STREAMS_PER_TENANT", min=1, help="Maximum open streams per tenant.")
    ] = CallLimits.max_streams_per_tenant,
    slow_reader_s: Annotated[
        float,
        typer.Option(envvar="LORAFLEET_SLOW_READER_S", min=1, help="Seconds after which a stream that its client does not read ends."),
    ] = CallLimits.slow_reader_s,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="LORAFLEET_LOG_LEVEL", help="Minimum level of log lines on stderr.")
    ] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="LORAFLEET_LOG_FORMAT", help="Text, or one JSON object per line.")
    ] = LogFormat.TEXT,
) -> None:
    """Serve the control plane: gRPC API, queue, and runs on Ray or Kubernetes. Ctrl-C shuts it down cleanly."""
    set_up(log_level, log_format)
    state_dir = state_dir.expanduser().resolve()
    host, port = parse_listen(listen)
    report_listen = parse_listen(access.report_listen, "--report-listen") if access.report_listen else None
    CredentialsFile(access.store_credentials).profiles()
    access.check(host, *(report_listen or ())[:1])
    kuberay = parse_backend(backend, kuberay_config, ray_address, artifacts)
    check_replica(database_url, role, bool(ray_address or kuberay), artifacts, access.report_address)
    artifacts_uri = (artifacts or default_artifacts(state_dir)).rstrip("/")
    settings = Settings(
        host=host,
        port=port,
        access=access,
        state_dir=state_dir,
        artifacts_uri=artifacts_uri,
        cache_uri=cache.rstrip("/") or default_cache(artifacts_uri),
        ray_address=ray_address or None,
        kuberay=kuberay,
        max_running_runs=max_running_runs,
        capacity_gpus=capacity_gpus,
        capacity_cpus=capacity_cpus,
        max_pack_size=max_pack_size,
        worker_memory_gib=worker_memory_gib,
        isolated_tenants=tuple(parse_tenant_id(tenant) for tenant in isolate_tenant or ()),
        warm_idle_s=warm_idle_s,
        grace_period_s=grace_period_s,
        heartbeat_timeout_s=heartbeat_timeout_s,
        start_timeout_s=start_timeout_s,
        start_deadline_s=start_deadline_s,
        database_url=database_url or None,
        role=role,
        metrics_listen=parse_metrics_listen(metrics_listen),
        otlp_endpoint=parse_otlp_endpoint(otlp_endpoint),
        calls=CallLimits(
            max_requests_per_s=max_requests_per_s,
            max_streams=max_streams,
            max_streams_per_tenant=max_streams_per_tenant,
            slow_reader_s=slow_reader_s,
        ),
    )
    _run(settings, address_file)


def _run(settings: Settings, address_file: Path | None) -> None:
    gc.disable()  # importing makes objects by the hundred thousand and no garbage: spares a tenth of the start
    from service.server import serve  # after the cheap checks: it imports gRPC and SQLAlchemy

    gc.freeze()
    gc.enable()

    asyncio.run(serve(settings, lambda address: _announce(address, address_file)))


def _announce(address: str, address_file: Path | None) -> None:
    if address_file is not None:
        address_file.write_text(address)
    typer.echo(f"lorafleet is listening on {address}")
    sys.stdout.flush()
