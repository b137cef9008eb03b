"""How far the log of adapters' events was forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("service", sa.Column("adapter_floor_seq", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("service", "adapter_floor_seq")
