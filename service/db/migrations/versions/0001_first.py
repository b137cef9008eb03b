"""The first schema."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from service.db.migrate import service_row
from service.db.types import UtcTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    service = op.create_table(
        "service",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("instance", sa.String, nullable=False),
        sa.Column("run_token_key", sa.LargeBinary, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("floor_seq", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(service, [service_row()])
    _jobs()
    _runs()
    _events()


def downgrade() -> None:
    for table in ("report_sources", "requests", "job_events", "run_logs", "run_jobs", "runs", "jobs", "service"):
        op.drop_table(table)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("uid", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("output_uri", sa.Text, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("retry_at", UtcTime),
        sa.Column("progress", sa.LargeBinary),
        sa.Column("artifact_uri", sa.Text),
        sa.Column("artifact_sha256", sa.String),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.Column("first_step_time", UtcTime),
        sa.Column("end_time", UtcTime),
        sa.Column("update_time", UtcTime, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("tenant", "job_id"),
    )
    op.create_index("ix_jobs_list", "jobs", ["tenant", "create_time", "uid"])
    op.create_index("ix_jobs_queue", "jobs", ["state", "create_time"])
    op.create_index("ix_jobs_output", "jobs", ["output_uri"])
    op.create_table(
        "requests",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("body_sha256", sa.String, nullable=False),
        sa.Column("job_uid", sa.String, sa.ForeignKey("jobs.uid"), nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("handle", sa.Text),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.Column("launch_time", UtcTime),
        sa.Column("gone_time", UtcTime),
        sa.Column("report_time", UtcTime),
        sa.Column("seen_time", UtcTime),
        sa.Column("due_at", UtcTime, nullable=False),
        sa.Column("num_launches", sa.Integer, nullable=False),
        sa.Column("stop_at", UtcTime),
        sa.Column("stop_reason", sa.String, nullable=False),
        sa.Column("stop_message", sa.Text, nullable=False),
        *_lock(),
    )
    op.create_index("ix_runs_state_due", "runs", ["state", "due_at"])
    op.create_table(
        "run_jobs",
        sa.Column("run_id", sa.String, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("job_uid", sa.String, sa.ForeignKey("jobs.uid"), primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("retryable", sa.Boolean, nullable=False),
        sa.Column("resumed_from_step", sa.Integer, nullable=False),
        sa.UniqueConstraint("job_uid", "attempt"),
    )
    op.create_table(
        "run_logs",
        sa.Column("run_id", sa.String, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("due_at", UtcTime, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("complete", sa.Boolean, nullable=False),
        *_lock(),
    )
    op.create_index("ix_run_logs_due", "run_logs", ["complete", "due_at"])
    op.create_table(
        "report_sources",
        sa.Column("run_id", sa.String, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
    )


def _lock() -> list[sa.Column[Any]]:
    return [sa.Column("lock_token", sa.String), sa.Column("lock_expires_at", UtcTime)]


def _events() -> None:
    op.create_table(
        "job_events",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("job_uid", sa.String, sa.ForeignKey("jobs.uid"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_job_events_tenant", "job_events", ["tenant", "seq"])
    op.create_index("ix_job_events_job", "job_events", ["job_uid", "seq"])
