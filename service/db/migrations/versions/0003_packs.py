"""Packs: warm workers that take one run after another, company, and jobs that join a run that trains."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("host_id", sa.String, nullable=False, server_default=""))
        runs.add_column(sa.Column("in_company", sa.Boolean, nullable=False, server_default=sa.false()))
        runs.create_index("ix_runs_host", ["host_id"])
    op.execute("UPDATE runs SET host_id = id")
    with op.batch_alter_table("run_jobs") as run_jobs:
        run_jobs.add_column(sa.Column("joining", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    with op.batch_alter_table("run_jobs") as run_jobs:
        run_jobs.drop_column("joining")
    with op.batch_alter_table("runs") as runs:
        runs.drop_index("ix_runs_host")
        for column in ("in_company", "host_id"):
            runs.drop_column(column)
