"""Adapter versions that were made elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("adapter_versions", sa.Column("source_uri", sa.Text))
    op.add_column("adapter_versions", sa.Column("source_sha256", sa.String, nullable=False, server_default=""))
    op.add_column("adapter_versions", sa.Column("request_id", sa.String))
    op.create_index("ix_adapter_versions_request", "adapter_versions", ["tenant", "request_id"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_adapter_versions_request", "adapter_versions")
    for name in ("request_id", "source_sha256", "source_uri"):
        op.drop_column("adapter_versions", name)
