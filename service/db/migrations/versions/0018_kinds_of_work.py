"""Other work than training, which runs like a job."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("kind", sa.String, nullable=False, server_default="training"))
    op.create_index("ix_jobs_list_kind", "jobs", ["tenant", "kind", "create_time", "uid"])


def downgrade() -> None:
    op.drop_index("ix_jobs_list_kind", "jobs")
    op.drop_column("jobs", "kind")
