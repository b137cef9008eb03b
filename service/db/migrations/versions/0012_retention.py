"""Deletion of adapters and versions, and rules of retention."""

import sqlalchemy as sa
from alembic import op

from service.db.types import UtcTime

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for name in ("last_number", "keep_newest", "keep_days"):
        op.add_column("adapters", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    for name in ("delete_time", "purge_at", "retain_at"):
        op.add_column("adapters", sa.Column(name, UtcTime))
    op.add_column("adapter_versions", sa.Column("is_ours", sa.Boolean, nullable=False, server_default=sa.false()))
    for name in ("delete_time", "purge_at"):
        op.add_column("adapter_versions", sa.Column(name, UtcTime))
    op.execute("UPDATE adapters SET last_number = newest_version")
    op.create_index("ix_adapters_purge", "adapters", ["purge_at"])
    op.create_index("ix_adapters_retain", "adapters", ["retain_at"])
    op.create_index("ix_adapter_versions_purge", "adapter_versions", ["purge_at"])
    op.create_index("ix_adapter_versions_bytes", "adapter_versions", ["tenant", "size_bytes"])


def downgrade() -> None:
    for name in ("ix_adapter_versions_bytes", "ix_adapter_versions_purge"):
        op.drop_index(name, "adapter_versions")
    for name in ("ix_adapters_retain", "ix_adapters_purge"):
        op.drop_index(name, "adapters")
    op.execute("UPDATE adapters SET newest_version = last_number")  # which the code before counts on from
    for name in ("purge_at", "delete_time", "is_ours"):
        op.drop_column("adapter_versions", name)
    for name in ("retain_at", "purge_at", "delete_time", "keep_days", "keep_newest", "last_number"):
        op.drop_column("adapters", name)
