"""How long jobs have been in runs, for those whose time is limited."""

import sqlalchemy as sa
from alembic import op

from service.db.types import UtcTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("max_run_time_s", sa.Float))
        jobs.add_column(sa.Column("run_time_s", sa.Float, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("run_start_time", UtcTime))


def downgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        for column in ("run_start_time", "run_time_s", "max_run_time_s"):
            jobs.drop_column(column)
