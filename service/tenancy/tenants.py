"""Administers tenants and their members: one transaction for each call."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, select, update

from lorafleet.errors import AlreadyExists, InvalidInput, NotFound, Violation
from lorafleet.v1 import access_service_pb2 as pb
from service.access.authorization import Access
from service.access.identity import Identity, Role
from service.control.lifecycle import FINISHED, JobState
from service.control.retention import MAX_DAYS, MAX_KEPT
from service.core.etags import check_etag
from service.core.resource_names import invalid
from service.db import quotas
from service.db.database import Database
from service.db.models import JobRow, MemberRow, TenantRow
from service.db.registry_models import AdapterRow
from service.db.transaction import Transaction
from service.store.credentials import CredentialsFile
from service.tenancy import messages
from service.tenancy.token_revocation import end_tokens

LIMITS = ("max_gpus", "max_running_jobs", "max_queued_jobs", "max_storage_bytes", "max_requests_per_s")
MOST_KEPT = {"adapter_keep_newest": MAX_KEPT, "adapter_keep_days": MAX_DAYS}  # retention of adapters that have no rule of their own
FIELDS = ("display_name", "weight", *LIMITS, *MOST_KEPT, "store_credentials", "is_isolated")
MAX_TEXT = 200
MAX_SHOWN = 8
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Tenants:
    """All tenants."""

    db: Database
    access: Access
    credentials: CredentialsFile = field(default_factory=CredentialsFile)

    async def create(self, tenant_id: str, wanted: pb.Tenant) -> pb.Tenant:
        """Raises InvalidInput with every violation, and AlreadyExists."""
        values = self._checked(wanted, FIELDS)
        async with self.db.transaction() as tx:
            if await tx.session.get(TenantRow, tenant_id) is not None:
                raise AlreadyExists(f"tenants/{tenant_id} exists; update it instead", reason="TENANT_ID_TAKEN")
            row = TenantRow(id=tenant_id, create_time=tx.now, update_time=tx.now, version=1, **values)
            tx.session.add(row)
            await _ask_rules(tx, tenant_id, values)
        return messages.tenant(row)

    async def get(self, tenant_id: str) -> pb.Tenant:
        """With what it has waiting, at work and stored. Raises NotFound."""
        async with self.db.snapshot() as tx:
            message = messages.tenant(await existing(tx, tenant_id))
            count = select(JobRow.state, func.count()).where(JobRow.tenant == tenant_id).group_by(JobRow.state)
            for state, number in await tx.session.execute(count.where(JobRow.state.not_in([one.value for one in FINISHED]))):
                if state == JobState.QUEUED.value:
                    message.num_queued_jobs += number
                else:
                    message.num_running_jobs += number
            message.stored_bytes = await quotas.stored_bytes(tx, tenant_id)
        return message

    async def page(self, caller: Identity, *, behind: str, size: int) -> Sequence[TenantRow]:
        """Up to `size` tenants that the caller may see, by id."""
        query = select(TenantRow).where(TenantRow.id > behind).order_by(TenantRow.id).limit(size)
        if not caller.is_admin and caller.tenant is not None:
            query = query.where(TenantRow.id == caller.tenant)
        elif not caller.is_admin:
            query = query.where(TenantRow.id.in_(select(MemberRow.tenant).where(MemberRow.principal == caller.principal)))
        async with self.db.snapshot() as tx:
            return (await tx.session.scalars(query)).all()

    async def update(self, tenant_id: str, wanted: pb.Tenant, paths: Sequence[str]) -> pb.Tenant:
        """Changes the fields of the mask. Raises InvalidInput with every violation, NotFound, and Aborted for an old etag."""
        if unknown := [path for path in paths if path not in FIELDS] or not paths:
            named = ", ".join(unknown) if isinstance(unknown, list) else "nothing"
            raise invalid("update_mask", f"names {named[:MAX_TEXT]}; it takes one or more of {', '.join(FIELDS)}")
        values = self._checked(wanted, paths)
        async with self.db.transaction() as tx:
            row = await existing(tx, tenant_id, lock=True)
            check_etag(f"tenants/{tenant_id}", messages.etag(row), wanted.etag)
            for name, value in values.items():
                setattr(row, name, value)
            row.version, row.update_time = row.version + 1, tx.now
            tx.changed = True  # limits decide who may start
            await _ask_rules(tx, tenant_id, values)
        return messages.tenant(row)

    def _checked(self, wanted: pb.Tenant, paths: Sequence[str]) -> dict[str, Any]:
        """The values of these fields. Raises InvalidInput with every violation."""
        values = {path: _value(wanted, path) for path in paths}
        mistakes = {path: _mistake(path, value) for path, value in values.items()}
        if reference := values.get("store_credentials"):
            mistakes["store_credentials"] = self._no_profile(reference)
        found = [Violation(field=f"tenant.{path}", message=mistake) for path, mistake in mistakes.items() if mistake is not None]
        if found:
            raise InvalidInput("\n".join(str(violation) for violation in found), violations=found)
        return values

    def _no_profile(self, reference: str) -> str | None:
        """What is wrong with a reference. Only administrators of the service get here, so existing names may be shown."""
        try:
            there = sorted(self.credentials.profiles())
        except InvalidInput:
            return "the service's file of store credentials cannot be read; see its log"
        if reference in there:
            return None
        known = ", ".join(there[:MAX_SHOWN]) + (f" and {len(there) - MAX_SHOWN} more" if len(there) > MAX_SHOWN else "")
        return f"{reference[:MAX_TEXT]!r} is not a profile of the file of --store-credentials; there: {known or 'none'}"

    async def set_member(self, tenant_id: str, principal: str, role: Role) -> pb.Member:
        """Tokens that the member made and that may more than it now end. Raises InvalidInput and NotFound."""
        check_text("member.principal", principal, at_least=1)
        async with self.db.transaction() as tx:
            await existing(tx, tenant_id)
            row = await tx.session.get(MemberRow, (tenant_id, principal), with_for_update=True)
            if row is None:
                row = MemberRow(tenant=tenant_id, principal=principal, role=role.value, create_time=tx.now)
                tx.session.add(row)
            row.role = role.value
            await end_tokens(tx, tenant_id, principal, role)
        self.access.forget(tenant_id)
        return messages.member(row)

    async def remove_member(self, tenant_id: str, principal: str) -> None:
        """Its tokens end with it. Raises InvalidInput and NotFound."""
        check_text("principal", principal, at_least=1)
        async with self.db.transaction() as tx:
            row = await tx.session.get(MemberRow, (tenant_id, principal), with_for_update=True)
            if row is None:
                raise NotFound(f"{principal[:MAX_TEXT]!r} is not a member of tenants/{tenant_id}", reason="MEMBER_NOT_FOUND")
            await tx.session.execute(delete(MemberRow).where(MemberRow.tenant == tenant_id, MemberRow.principal == principal))
            await end_tokens(tx, tenant_id, principal, None)
        self.access.forget(tenant_id)


async def existing(tx: Transaction, tenant_id: str, *, lock: bool = False) -> TenantRow:
    """Raises NotFound."""
    row = await tx.session.get(TenantRow, tenant_id, with_for_update=lock or None)
    if row is None:
        raise NotFound(f"tenants/{tenant_id} is not set up; an administrator of the service creates it", reason="TENANT_NOT_FOUND")
    return row


async def _ask_rules(tx: Transaction, tenant_id: str, changed: Mapping[str, Any]) -> None:
    """The rule of adapters that have none of their own is another."""
    if any(changed.get(name) is not None for name in MOST_KEPT):
        theirs = (AdapterRow.tenant == tenant_id, AdapterRow.keep_newest == 0, AdapterRow.keep_days == 0)
        await tx.session.execute(update(AdapterRow).where(*theirs, AdapterRow.newest_version > 1).values(retain_at=tx.now))


def check_text(field: str, text: str, *, at_least: int = 0, at_most: int = MAX_TEXT) -> None:
    """Raises InvalidInput."""
    if not at_least <= len(text) <= at_most or _CONTROL.search(text):
        raise invalid(field, f"is not {at_least} to {at_most:,} characters without control characters")


def _value(wanted: pb.Tenant, path: str) -> Any:
    if path == "weight":
        return wanted.weight if wanted.HasField("weight") else 1.0
    if path in LIMITS or path in MOST_KEPT:
        return getattr(wanted, path) if wanted.HasField(path) else None
    return getattr(wanted, path)


def _mistake(path: str, value: Any) -> str | None:
    if path == "weight":
        return None if math.isfinite(value) and value > 0 else f"{value} is not more than 0"
    if path in LIMITS:
        return None if value is None or (math.isfinite(value) and value >= 0) else f"{value} is negative, or no number"
    if path in MOST_KEPT:
        return None if value is None or 0 <= value <= MOST_KEPT[path] else f"{value} is not 0 to {MOST_KEPT[path]:,}"
    if path == "display_name":
        is_text = len(value) <= MAX_TEXT and not _CONTROL.search(value)
        return None if is_text else f"is longer than {MAX_TEXT} characters, or has control characters"
    return None
