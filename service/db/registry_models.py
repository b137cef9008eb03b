"""Declares the tables of the registry: adapters and their versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.models import Lockable, TableBase

_FILTERED = ("delete_time", "family", "method", "labels", "quality")  # what filters read, so that they fetch no row in vain
JSON_LIST = JSON(none_as_null=True)


class Described:
    """What is known of an adapter: of each version, and of the adapter itself, whose facts are its newest version's."""

    family: Mapped[str] = mapped_column(default="")
    method: Mapped[str] = mapped_column(default="")
    rank: Mapped[int] = mapped_column(default=0)
    trigger: Mapped[str] = mapped_column(Text, default="")
    base_digest: Mapped[str] = mapped_column(default="")
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    quality: Mapped[dict[str, Any]] = mapped_column(default=dict)  # figures by name


class AdapterRow(Described, TableBase):
    """An adapter: a name, and the number that its next version gets."""

    __tablename__ = "adapters"
    uid: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    adapter_id: Mapped[str]
    last_number: Mapped[int] = mapped_column(default=0)  # of a version: numbers are never used twice
    newest_version: Mapped[int] = mapped_column(default=0)  # of those that are not deleted; 0: there is none
    delete_time: Mapped[datetime | None] = mapped_column(default=None)
    purge_at: Mapped[datetime | None] = mapped_column(default=None)  # deleted, and this unset: it is purged
    keep_newest: Mapped[int] = mapped_column(default=0)  # its rule of retention
    keep_days: Mapped[int] = mapped_column(default=0)
    retain_at: Mapped[datetime | None] = mapped_column(default=None)  # the rule is asked from then on
    create_time: Mapped[datetime]
    update_time: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)  # of the row

    __table_args__ = (
        UniqueConstraint("tenant", "adapter_id"),
        Index("ix_adapters_list", "tenant", "create_time", "uid").ddl_if(dialect="postgresql"),
        Index("ix_adapters_found", "tenant", "create_time", "uid", *_FILTERED).ddl_if(dialect="sqlite"),
        Index("ix_adapters_base", "tenant", "base_digest", "create_time", "uid"),
        Index("ix_adapters_purge", "purge_at"),
        Index("ix_adapters_retain", "retain_at"),
    )

    @property
    def name(self) -> str:
        return f"tenants/{self.tenant}/adapters/{self.adapter_id}"


class AdapterAliasRow(TableBase):
    """A name for one version of an adapter. It changes under the lock of its adapter."""

    __tablename__ = "adapter_aliases"
    adapter_uid: Mapped[str] = mapped_column(ForeignKey("adapters.uid"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    previous: Mapped[int] = mapped_column(default=0)  # number of the version that it pointed to before; 0: none
    updated_by: Mapped[str]  # principal
    update_time: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)  # of the row


class AdapterVersionRow(Described, Lockable, TableBase):
    """One version of an adapter. A job has one at most, ever."""

    __tablename__ = "adapter_versions"
    uid: Mapped[str] = mapped_column(primary_key=True)
    adapter_uid: Mapped[str] = mapped_column(ForeignKey("adapters.uid"))
    tenant: Mapped[str]
    adapter_id: Mapped[str]  # the adapter's, which never changes: a message needs no join
    number: Mapped[int]
    job_uid: Mapped[str | None] = mapped_column(ForeignKey("jobs.uid"), default=None, unique=True)
    job_id: Mapped[str | None] = mapped_column(default=None)
    source_uri: Mapped[str | None] = mapped_column(Text, default=None)  # of one that was made elsewhere: what it is a copy of
    source_sha256: Mapped[str] = mapped_column(default="")  # that its file must have; empty: any
    request_id: Mapped[str | None] = mapped_column(default=None)  # of the call that imports it
    root_uri: Mapped[str] = mapped_column(Text)  # the folder that its maker was allowed to write to: links do not lead out of it
    artifact_uri: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str]  # empty: the files are not copied yet
    size_bytes: Mapped[int | None] = mapped_column(BigInteger, default=None)
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(Text, default="")
    files: Mapped[dict[str, Any] | None] = mapped_column(JSON_LIST, default=None, deferred=True)  # as the manifest has them
    parents: Mapped[list[Any] | None] = mapped_column(JSON_LIST, default=None)  # `control/adapter_parents.py`
    created_by: Mapped[str] = mapped_column(default="")  # principal
    create_time: Mapped[datetime]
    due_at: Mapped[datetime | None] = mapped_column(default=None)  # its manifest is read from then on; unset: it was read
    is_ours: Mapped[bool] = mapped_column(default=False)  # its files lie where the service put them: they go with it
    delete_time: Mapped[datetime | None] = mapped_column(default=None)
    purge_at: Mapped[datetime | None] = mapped_column(default=None)  # its files are removed from then on

    __table_args__ = (
        UniqueConstraint("adapter_uid", "number"),
        Index("ix_adapter_versions_request", "tenant", "request_id", unique=True),
        Index("ix_adapter_versions_due", "due_at"),
        Index("ix_adapter_versions_purge", "purge_at"),
        Index("ix_adapter_versions_bytes", "tenant", "size_bytes"),  # holds all that the sum of a tenant's bytes needs
    )

    @property
    def name(self) -> str:
        return f"tenants/{self.tenant}/adapters/{self.adapter_id}/versions/{self.number}"
