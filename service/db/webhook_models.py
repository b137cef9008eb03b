"""Declares the tables of what happens to adapters, and of who is told."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.models import Lockable, TableBase


class AdapterEventRow(TableBase):
    """Something that happened to an adapter. `seq` is of the one sequence that job events are of: commits appear in its order."""

    __tablename__ = "adapter_events"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant: Mapped[str]
    adapter_id: Mapped[str]
    kind: Mapped[str]
    time: Mapped[datetime]
    data: Mapped[dict[str, Any]]

    __table_args__ = (Index("ix_adapter_events_tenant", "tenant", "seq"), Index("ix_adapter_events_time", "time"))


class WebhookRow(Lockable, TableBase):
    """An endpoint that is told what happens to a tenant's adapters, in order: `cursor` is the newest event that it has taken."""

    __tablename__ = "webhooks"
    uid: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    webhook_id: Mapped[str]
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str]  # that its events are signed with
    kinds: Mapped[list[Any]] = mapped_column(JSON)  # of events; empty: all
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(Text, default="")  # of the newest failure
    cursor: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    failing_since: Mapped[datetime | None] = mapped_column(default=None)
    due_at: Mapped[datetime]  # the next event is sent from then on
    created_by: Mapped[str]
    create_time: Mapped[datetime]
    deliver_time: Mapped[datetime | None] = mapped_column(default=None)  # of the newest event that it took
    version: Mapped[int] = mapped_column(default=1)

    __table_args__ = (UniqueConstraint("tenant", "webhook_id"), Index("ix_webhooks_due", "state", "due_at"))

    @property
    def name(self) -> str:
        return f"tenants/{self.tenant}/webhooks/{self.webhook_id}"
