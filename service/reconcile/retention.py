"""Deletes versions by the rules of retention of their adapters, or of their tenants. They can be had back until `purge.py` runs."""

from sqlalchemy import select

from service.control.retention import KeptVersion, Rule, judge
from service.db import adapters, aliases, audit
from service.db.audit import AuditEntry
from service.db.models import TenantRow
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.db.transaction import Transaction
from service.reconcile.context import Tools

PRINCIPAL = "service:retention"  # in the audit log


async def retain_once(tools: Tools) -> bool:
    """Ask the rule that is due first. False when none is."""
    async with tools.db.transaction() as tx:
        due = select(AdapterRow).where(AdapterRow.retain_at <= tx.now).order_by(AdapterRow.retain_at).limit(1)
        adapter = await tx.session.scalar(tx.locked(due, skip=True))
        if adapter is None:
            return False
        await _apply_rule(tx, adapter)
    return True


async def _apply_rule(tx: Transaction, adapter: AdapterRow) -> None:
    which = (AdapterVersionRow.adapter_uid == adapter.uid, AdapterVersionRow.delete_time.is_(None))
    rows = (await tx.session.scalars(tx.locked(select(AdapterVersionRow).where(*which).order_by(AdapterVersionRow.uid)))).all()
    pointed_to = set((await aliases.of_adapter(tx, adapter)).values())
    versions = [KeptVersion(number=row.number, create_time=row.create_time, has_alias=row.number in pointed_to) for row in rows]
    verdict = judge(await _rule(tx, adapter), versions, tx.now)
    adapter.retain_at = verdict.again_at
    for row in rows:
        if row.number in verdict.deleted:
            adapters.mark_deleted(tx, row, PRINCIPAL)
            audit.append(tx, _entry(row), code="OK")
    if verdict.deleted:
        await adapters.refresh(tx, adapter)


async def _rule(tx: Transaction, adapter: AdapterRow) -> Rule:
    """Its own, or its tenant's."""
    own = Rule(keep_newest=adapter.keep_newest, keep_days=adapter.keep_days)
    tenant = None if own else await tx.session.get(TenantRow, adapter.tenant)
    return own if tenant is None else Rule(keep_newest=tenant.adapter_keep_newest or 0, keep_days=tenant.adapter_keep_days or 0)


def _entry(row: AdapterVersionRow) -> AuditEntry:
    return AuditEntry(tenant=row.tenant, principal=PRINCIPAL, method="retention", resource=row.name, peer="")
