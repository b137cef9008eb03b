"""Adapters and their versions. Jobs that have succeeded before get theirs by the loop `versions`."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from service.db.types import UtcTime

revision = "0010"
down_revision = "0009"
_UNREGISTERED = sa.text("state = 'SUCCEEDED' AND adapter_version IS NULL")


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("uid", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("adapter_id", sa.String, nullable=False),
        sa.Column("newest_version", sa.Integer, nullable=False),
        *_described(),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.Column("update_time", UtcTime, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("tenant", "adapter_id"),
    )
    op.create_index("ix_adapters_list", "adapters", ["tenant", "create_time", "uid"])
    op.create_index("ix_adapters_base", "adapters", ["tenant", "base_digest", "create_time", "uid"])
    op.create_table(
        "adapter_versions",
        sa.Column("uid", sa.String, primary_key=True),
        sa.Column("adapter_uid", sa.String, sa.ForeignKey("adapters.uid"), nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("adapter_id", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("job_uid", sa.String, sa.ForeignKey("jobs.uid"), unique=True),
        sa.Column("job_id", sa.String),
        sa.Column("root_uri", sa.Text, nullable=False),
        sa.Column("artifact_uri", sa.Text, nullable=False),
        sa.Column("manifest_sha256", sa.String, nullable=False),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("files", sa.JSON),
        sa.Column("parents", sa.JSON),
        *_described(),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.Column("due_at", UtcTime),
        sa.Column("lock_token", sa.String),
        sa.Column("lock_expires_at", UtcTime),
        sa.UniqueConstraint("adapter_uid", "number"),
    )
    op.create_index("ix_adapter_versions_due", "adapter_versions", ["due_at"])
    op.add_column("jobs", sa.Column("adapter_id", sa.String))
    op.add_column("jobs", sa.Column("adapter_version", sa.Integer))
    op.create_index("ix_jobs_unregistered", "jobs", ["uid"], sqlite_where=_UNREGISTERED, postgresql_where=_UNREGISTERED)


def downgrade() -> None:
    op.drop_index("ix_jobs_unregistered", "jobs")
    op.drop_column("jobs", "adapter_version")
    op.drop_column("jobs", "adapter_id")
    op.drop_table("adapter_versions")
    op.drop_table("adapters")


def _described() -> list[sa.Column[Any]]:
    return [
        sa.Column("family", sa.String, nullable=False),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("base_digest", sa.String, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("quality", sa.JSON, nullable=False),
    ]
