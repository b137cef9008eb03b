"""What happens to adapters, and the webhooks that are told."""

import sqlalchemy as sa
from alembic import op

from service.db.types import UtcTime

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "adapter_events",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("adapter_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_index("ix_adapter_events_tenant", "adapter_events", ["tenant", "seq"])
    op.create_index("ix_adapter_events_time", "adapter_events", ["time"])
    op.create_table(
        "webhooks",
        sa.Column("uid", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("webhook_id", sa.String, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.String, nullable=False),
        sa.Column("kinds", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failing_since", UtcTime),
        sa.Column("due_at", UtcTime, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("create_time", UtcTime, nullable=False),
        sa.Column("deliver_time", UtcTime),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("lock_token", sa.String),
        sa.Column("lock_expires_at", UtcTime),
        sa.UniqueConstraint("tenant", "webhook_id"),
    )
    op.create_index("ix_webhooks_due", "webhooks", ["state", "due_at"])


def downgrade() -> None:
    op.drop_table("webhooks")
    op.drop_table("adapter_events")
