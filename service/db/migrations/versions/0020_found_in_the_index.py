"""On SQLite the index that pages of adapters follow holds what their filters read: no row is fetched that is not shown."""

from alembic import op

revision = "0020"
down_revision = "0019"

PLAIN = ["tenant", "create_time", "uid"]
HELD = [*PLAIN, "delete_time", "family", "method", "labels", "quality"]  # PostgreSQL's indexes hold no JSON, and no long entries


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_adapters_list", "adapters")
        op.create_index("ix_adapters_found", "adapters", HELD)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_adapters_found", "adapters")
        op.create_index("ix_adapters_list", "adapters", PLAIN)
