"""The sum of all steps of the clock that what goes on was carried over."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("service") as service:
        service.add_column(sa.Column("clock_carried_us", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("service") as service:
        service.drop_column("clock_carried_us")
