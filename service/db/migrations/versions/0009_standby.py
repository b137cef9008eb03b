"""Workers that stand by for a first run."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("standby", sa.JSON))


def downgrade() -> None:
    op.execute("DELETE FROM report_sources WHERE run_id IN (SELECT id FROM runs WHERE standby IS NOT NULL)")
    op.execute("DELETE FROM run_logs WHERE run_id IN (SELECT id FROM runs WHERE standby IS NOT NULL)")
    op.execute("DELETE FROM runs WHERE standby IS NOT NULL")  # the code before would look for their jobs
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("standby")
