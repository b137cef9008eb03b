"""The rule of retention of a tenant's adapters that have none of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    for name in ("adapter_keep_newest", "adapter_keep_days"):
        op.add_column("tenants", sa.Column(name, sa.Integer))


def downgrade() -> None:
    for name in ("adapter_keep_days", "adapter_keep_newest"):
        op.drop_column("tenants", name)
