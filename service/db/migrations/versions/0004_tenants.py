"""Tenants with their limits, members, tokens, grants and reservations; the audit log; what admission sums up of jobs."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from service.db.types import UtcTime

revision = "0004"
down_revision = "0003"

_UNFINISHED = sa.text("state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')")
_JOB_COLUMNS = (
    ("artifact_bytes", sa.BigInteger, None),
    ("created_by", sa.String, ""),
    ("priority", sa.Integer, "0"),
    ("gpus", sa.Float, "0"),
    ("cpus", sa.Float, "0"),
    ("preempt_requested", sa.Boolean, sa.false()),
    ("queue_position", sa.Integer, None),
    ("trace_parent", sa.String, ""),
)


def upgrade() -> None:
    with op.batch_alter_table("service") as service:
        service.add_column(sa.Column("admission_epoch", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("jobs") as jobs:
        for name, kind, default in _JOB_COLUMNS:
            jobs.add_column(sa.Column(name, kind, nullable=default is None, server_default=default))
        jobs.drop_index("ix_jobs_output")
        jobs.create_index("ix_jobs_tenant_state", ["tenant", "state"])
    op.create_index("ix_jobs_output", "jobs", ["output_uri"], unique=True, sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED)
    _fill_in()
    _tenants()
    _access()
    op.create_table(
        "audit_log",
        sa.Column("uid", sa.String, primary_key=True),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("peer", sa.String, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_index("ix_audit_log_tenant", "audit_log", ["tenant", "time", "uid"])


def downgrade() -> None:
    for table in ("audit_log", "reservations", "grants", "api_tokens", "members", "tenants"):
        op.drop_table(table)
    op.drop_index("ix_jobs_output", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("ix_jobs_tenant_state")
        jobs.create_index("ix_jobs_output", ["output_uri"])
        for name, _, _ in reversed(_JOB_COLUMNS):
            jobs.drop_column(name)
    with op.batch_alter_table("service") as service:
        service.drop_column("admission_epoch")


def _fill_in() -> None:
    """Jobs of before: what their specs say."""
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in ("uid", "priority", "gpus", "cpus")]
    jobs = sa.table("jobs", *columns, sa.column("spec", sa.JSON))
    connection = op.get_bind()
    for uid, spec in connection.execute(sa.select(jobs.c.uid, jobs.c.spec)).all():
        cluster = spec.get("cluster", {})
        num_workers = cluster.get("num_workers", 1)
        values = {
            "priority": spec.get("scheduling", {}).get("priority", 0),
            "gpus": num_workers * cluster.get("gpus_per_worker", 0.0),
            "cpus": num_workers * cluster.get("cpus_per_worker", 1.0),
        }
        connection.execute(sa.update(jobs).where(jobs.c.uid == uid).values(values))


def _tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("max_gpus", sa.Float),
        sa.Column("max_running_jobs", sa.Integer),
        sa.Column("max_queued_jobs", sa.Integer),
        sa.Column("max_storage_bytes", sa.BigInteger),
        sa.Column("max_requests_per_s", sa.Float),
        sa.Column("store_credentials", sa.String, nullable=False),
        sa.Column("is_isolated", sa.Boolean, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.Column("update_time", UtcTime, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "reservations",
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("reservation_id", sa.String, primary_key=True),
        sa.Column("gpus", sa.Float, nullable=False),
        sa.Column("start_time", UtcTime, nullable=False),
        sa.Column("end_time", UtcTime, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
    )


def _access() -> None:
    op.create_table(
        "members",
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("principal", sa.String, primary_key=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("secret_sha256", sa.String, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.Column("expire_time", UtcTime),
        sa.Column("revoke_time", UtcTime),
    )
    op.create_index("ix_api_tokens_tenant", "api_tokens", ["tenant", "create_time"])
    op.create_table(
        "grants",
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("prefix", sa.Text, primary_key=True),
        sa.Column("may_write", sa.Boolean, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
    )
