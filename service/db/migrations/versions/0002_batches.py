"""Batches, and the jobs that belong to one."""

import sqlalchemy as sa
from alembic import op

from service.db.types import UtcTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("uid", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("batch_id", sa.String, nullable=False),
        sa.Column("num_jobs", sa.Integer, nullable=False),
        sa.Column("request_id", sa.String),
        sa.Column("body_sha256", sa.String, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.UniqueConstraint("tenant", "batch_id"),
        sa.UniqueConstraint("tenant", "request_id"),
    )
    op.create_index("ix_batches_list", "batches", ["tenant", "create_time", "uid"])
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("batch_uid", sa.String))
        jobs.add_column(sa.Column("batch_id", sa.String))
        jobs.add_column(sa.Column("batch_index", sa.Integer))
        jobs.create_foreign_key("fk_jobs_batch_uid", "batches", ["batch_uid"], ["uid"])
        jobs.create_index("ix_jobs_batch", ["batch_uid", "batch_index"])
        jobs.create_index("ix_jobs_batch_counts", ["batch_uid", "state", "end_time"])


def downgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("ix_jobs_batch_counts")
        jobs.drop_index("ix_jobs_batch")
        jobs.drop_constraint("fk_jobs_batch_uid", type_="foreignkey")
        for column in ("batch_index", "batch_id", "batch_uid"):
            jobs.drop_column(column)
    op.drop_table("batches")
