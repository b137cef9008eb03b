"""Declares the tables. A row is `JobRow`; what decisions see of it is `control.lifecycle.Job`."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lorafleet import work
from lorafleet.work import TRAINING
from service.db.types import UtcTime


class TableBase(DeclarativeBase):
    """All tables."""

    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        datetime: UtcTime,
        dict[str, Any]: JSON,
        bytes: LargeBinary,
        str: String,
        bool: Boolean,
        int: Integer,
        float: Float,
    }


class Lockable:
    """A row that only one loop works on at a time: `lock_token` names the holder until `lock_expires_at`."""

    lock_token: Mapped[str | None] = mapped_column(default=None)
    lock_expires_at: Mapped[datetime | None] = mapped_column(default=None)


class ServiceRow(TableBase):
    """The one row about the service itself. `last_seq` is the commit-safe cursor of `job_events`.

    A transaction that appends events updates this row after all others, right before the insert, and holds its lock until
    commit: events become visible in the order of `seq`, which a sequence does not guarantee (commits may be out of order).
    """

    __tablename__ = "service"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    instance: Mapped[str]  # new with every database: resume tokens of another are refused
    run_token_key: Mapped[bytes]  # run tokens are derived from it, so that a repeated launch carries the same one
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    floor_seq: Mapped[int] = mapped_column(BigInteger, default=0)  # events up to here are gone
    adapter_floor_seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of adapters' the newest that is gone
    # Number of admission rounds applied: a decision based on another number is not applied, so two replicas never give
    # away the same capacity.
    admission_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    # The sum of all steps of the clock (`clock_steps`): of replicas that notice the same one, one carries it over.
    clock_carried_us: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class TenantRow(TableBase):
    """A tenant that was created: its share, limits and reference to credentials. Tenants without a row have the defaults.

    An unset limit means unlimited.
    """

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    display_name: Mapped[str] = mapped_column(default="")
    weight: Mapped[float] = mapped_column(default=1.0)  # of its share, against the other tenants'
    max_gpus: Mapped[float | None] = mapped_column(default=None)
    max_running_jobs: Mapped[int | None] = mapped_column(default=None)
    max_queued_jobs: Mapped[int | None] = mapped_column(default=None)
    max_storage_bytes: Mapped[int | None] = mapped_column(BigInteger, default=None)  # of its artifacts
    max_requests_per_s: Mapped[float | None] = mapped_column(default=None)
    store_credentials: Mapped[str] = mapped_column(default="")  # a reference, never the secret
    is_isolated: Mapped[bool] = mapped_column(default=False)  # its jobs share no process with another tenant's
    adapter_keep_newest: Mapped[int | None] = mapped_column(default=None)  # retention of its adapters that have no rule of their own
    adapter_keep_days: Mapped[int | None] = mapped_column(default=None)
    create_time: Mapped[datetime]
    update_time: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)


class MemberRow(TableBase):
    """The role of a principal in a tenant."""

    __tablename__ = "members"
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    principal: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    create_time: Mapped[datetime]


class ApiTokenRow(TableBase):
    """A token for programs. The secret itself is not stored."""

    __tablename__ = "api_tokens"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    display_name: Mapped[str] = mapped_column(default="")
    role: Mapped[str]
    secret_sha256: Mapped[str]
    created_by: Mapped[str]
    create_time: Mapped[datetime]
    expire_time: Mapped[datetime | None] = mapped_column(default=None)
    revoke_time: Mapped[datetime | None] = mapped_column(default=None)

    __table_args__ = (Index("ix_api_tokens_tenant", "tenant", "create_time"),)


class GrantRow(TableBase):
    """A store prefix that a tenant may read from, or write to as well."""

    __tablename__ = "grants"
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    prefix: Mapped[str] = mapped_column(Text, primary_key=True)
    may_write: Mapped[bool] = mapped_column(default=False)
    create_time: Mapped[datetime]


class ReservationRow(TableBase):
    """GPUs reserved for a tenant during a window."""

    __tablename__ = "reservations"
    tenant: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    reservation_id: Mapped[str] = mapped_column(primary_key=True)
    gpus: Mapped[float]
    start_time: Mapped[datetime]
    end_time: Mapped[datetime]
    create_time: Mapped[datetime]


class AuditRow(TableBase):
    """A write or denied write: who, what, when, from where, and the outcome. Never changed afterwards."""

    __tablename__ = "audit_log"
    uid: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[datetime]
    tenant: Mapped[str]
    principal: Mapped[str]
    method: Mapped[str]
    resource: Mapped[str] = mapped_column(Text, default="")
    peer: Mapped[str] = mapped_column(default="")
    code: Mapped[str]  # of the response, as gRPC names it
    reason: Mapped[str] = mapped_column(default="")

    __table_args__ = (Index("ix_audit_log_tenant", "tenant", "time", "uid"),)


class BatchRow(TableBase):
    """A batch. By `request_id` and the digest of its body a repeated CreateBatch returns the first batch (AIP-155)."""

    __tablename__ = "batches"
    uid: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    batch_id: Mapped[str]
    num_jobs: Mapped[int]
    request_id: Mapped[str | None] = mapped_column(default=None)
    body_sha256: Mapped[str]
    create_time: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("tenant", "batch_id"),
        UniqueConstraint("tenant", "request_id"),
        Index("ix_batches_list", "tenant", "create_time", "uid"),
    )

    @property
    def name(self) -> str:
        return f"tenants/{self.tenant}/batches/{self.batch_id}"


_UNFINISHED = text("state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')")
_UNREGISTERED = text("state = 'SUCCEEDED' AND adapter_version IS NULL")


class JobRow(TableBase):
    """A job; or other work that is admitted, run, tried again and cancelled like one: `lorafleet.work` has the kinds."""

    __tablename__ = "jobs"
    uid: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    job_id: Mapped[str]  # of other work than jobs it begins with the collection: "generations/fox"
    kind: Mapped[str] = mapped_column(default=TRAINING, server_default=TRAINING)
    batch_uid: Mapped[str | None] = mapped_column(ForeignKey("batches.uid"), default=None)
    batch_id: Mapped[str | None] = mapped_column(default=None)  # the batch's, which never changes: a message needs no join
    batch_index: Mapped[int | None] = mapped_column(default=None)
    spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    output_uri: Mapped[str] = mapped_column(Text)
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(Text, default="")
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    retry_at: Mapped[datetime | None] = mapped_column(default=None)
    progress: Mapped[bytes | None] = mapped_column(default=None)  # lorafleet.v1.Progress
    artifact_uri: Mapped[str | None] = mapped_column(Text, default=None)
    artifact_sha256: Mapped[str | None] = mapped_column(default=None)
    artifact_bytes: Mapped[int | None] = mapped_column(BigInteger, default=None)
    created_by: Mapped[str] = mapped_column(default="")  # principal
    priority: Mapped[int] = mapped_column(default=0)  # as the spec says, like the two below: sums need no JSON
    gpus: Mapped[float] = mapped_column(default=0.0)  # of all its workers
    cpus: Mapped[float] = mapped_column(default=0.0)
    preempt_requested: Mapped[bool] = mapped_column(default=False)  # stops for a job that comes before it, and is queued again
    max_run_time_s: Mapped[float | None] = mapped_column(default=None)  # as the spec says
    run_time_s: Mapped[float] = mapped_column(default=0.0)  # in the runs before the one that it is in
    run_start_time: Mapped[datetime | None] = mapped_column(default=None)  # of the run that it is in
    queue_position: Mapped[int | None] = mapped_column(default=None)  # 1: the next
    # The version of an adapter that its artifact is: set in the transaction in which it succeeds. 0: it never becomes one.
    adapter_id: Mapped[str | None] = mapped_column(default=None)
    adapter_version: Mapped[int | None] = mapped_column(default=None)
    # W3C trace context of the call that created it.
    trace_parent: Mapped[str] = mapped_column(default="")
    create_time: Mapped[datetime]
    first_step_time: Mapped[datetime | None] = mapped_column(default=None)
    end_time: Mapped[datetime | None] = mapped_column(default=None)
    update_time: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    __table_args__ = (
        UniqueConstraint("tenant", "job_id"),
        Index("ix_jobs_list", "tenant", "create_time", "uid"),
        Index("ix_jobs_list_kind", "tenant", "kind", "create_time", "uid"),
        Index("ix_jobs_queue", "state", "create_time"),
        # Two unfinished jobs never write to the same folder, even if two replicas accept them at the same moment.
        Index("ix_jobs_output", "output_uri", unique=True, sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED),
        Index("ix_jobs_tenant_state", "tenant", "state"),
        # Those that a server of a version before has let succeed: `adapters.register_older` finds them at no cost.
        Index("ix_jobs_unregistered", "uid", sqlite_where=_UNREGISTERED, postgresql_where=_UNREGISTERED),
        Index("ix_jobs_batch", "batch_uid", "batch_index"),
        Index("ix_jobs_batch_counts", "batch_uid", "state", "end_time"),  # holds all that the counts of a batch need
    )

    @property
    def name(self) -> str:
        return work.name_of(self.tenant, self.job_id)

    @property
    def batch(self) -> str:
        """Name of its batch; empty for a lone job."""
        return "" if self.batch_id is None else f"tenants/{self.tenant}/batches/{self.batch_id}"

    @property
    def adapter_version_name(self) -> str:
        """Name of the version that its artifact is; empty while there is none."""
        named = f"tenants/{self.tenant}/adapters/{self.adapter_id}/versions/{self.adapter_version}"
        return named if self.adapter_version else ""


def _own_id(context: Any) -> str:
    return context.get_current_parameters()["id"]


class RunRow(Lockable, TableBase):
    """One execution of a pack."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(primary_key=True)
    # The backend job that it executes in, by the id of the first run there: warm workers take one run after another.
    host_id: Mapped[str] = mapped_column(default=_own_id)
    in_company: Mapped[bool] = mapped_column(default=False)  # as its manifest says
    store_credentials: Mapped[str] = mapped_column(default="")  # the reference that its tenant had; unset: the service's own
    # Workers that stand by: a run without jobs, as `lorafleet.contract.run_manifest.Standby`.
    standby: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    state: Mapped[str]
    handle: Mapped[str | None] = mapped_column(Text, default=None)  # the backend's own name for it
    create_time: Mapped[datetime]
    launch_time: Mapped[datetime | None] = mapped_column(default=None)
    gone_time: Mapped[datetime | None] = mapped_column(default=None)  # or went idle: the end of its last job
    report_time: Mapped[datetime | None] = mapped_column(default=None)  # newest report
    seen_time: Mapped[datetime | None] = mapped_column(default=None)  # newest answer of the backend about it
    due_at: Mapped[datetime]  # launched or observed again from then on
    num_launches: Mapped[int] = mapped_column(default=0)  # tries so far
    stop_at: Mapped[datetime | None] = mapped_column(default=None)  # hard stop from then on
    stop_reason: Mapped[str] = mapped_column(default="")
    stop_message: Mapped[str] = mapped_column(Text, default="")

    __table_args__ = (Index("ix_runs_state_due", "state", "due_at"), Index("ix_runs_host", "host_id"))


class RunJobRow(TableBase):
    """A member of a run's pack, and how it ended there as far as the run reported."""

    __tablename__ = "run_jobs"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    job_uid: Mapped[str] = mapped_column(ForeignKey("jobs.uid"), primary_key=True)
    attempt: Mapped[int]
    outcome: Mapped[str | None] = mapped_column(default=None)
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(Text, default="")
    retryable: Mapped[bool] = mapped_column(default=False)
    resumed_from_step: Mapped[int] = mapped_column(default=0)
    joining: Mapped[bool] = mapped_column(default=False)  # added while the run trained, which has not spoken of it yet

    __table_args__ = (UniqueConstraint("job_uid", "attempt"),)


class RunLogRow(Lockable, TableBase):
    """The copying of a run's log to the store."""

    __tablename__ = "run_logs"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    due_at: Mapped[datetime]
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)  # of the backend's log, copied so far
    reading: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)  # reconcile.copy_logs: where to go on
    complete: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (Index("ix_run_logs_due", "complete", "due_at"),)


class JobEventRow(TableBase):
    """A change of a job, as sent to watchers."""

    __tablename__ = "job_events"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant: Mapped[str]
    job_uid: Mapped[str] = mapped_column(ForeignKey("jobs.uid"))
    version: Mapped[int]
    time: Mapped[datetime]
    payload: Mapped[bytes]  # lorafleet.v1.TrainingJob after the change, without its spec

    __table_args__ = (Index("ix_job_events_tenant", "tenant", "seq"), Index("ix_job_events_job", "job_uid", "seq"))


class RequestRow(TableBase):
    """A completed CreateTrainingJob: the same id with the same body returns the same job (AIP-155)."""

    __tablename__ = "requests"
    tenant: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    job_uid: Mapped[str] = mapped_column(ForeignKey("jobs.uid"))
    create_time: Mapped[datetime]


class ReportSourceRow(TableBase):
    """The highest sequence applied for one process of a run: a repeated report changes nothing."""

    __tablename__ = "report_sources"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
