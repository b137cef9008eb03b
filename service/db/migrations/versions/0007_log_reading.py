"""How far the log of a run is read, and what is known of it there."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("run_logs") as run_logs:
        run_logs.add_column(sa.Column("reading", sa.JSON))


def downgrade() -> None:
    with op.batch_alter_table("run_logs") as run_logs:
        run_logs.drop_column("reading")
