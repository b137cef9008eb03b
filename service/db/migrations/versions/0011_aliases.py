"""Aliases of adapters."""

import sqlalchemy as sa
from alembic import op

from service.db.types import UtcTime

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "adapter_aliases",
        sa.Column("adapter_uid", sa.String, sa.ForeignKey("adapters.uid"), primary_key=True),
        sa.Column("alias", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("previous", sa.Integer, nullable=False),
        sa.Column("updated_by", sa.String, nullable=False),
        sa.Column("update_time", UtcTime, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("adapter_aliases")
