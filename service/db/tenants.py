"""Reads the settings of tenants."""

from sqlalchemy import select

from service.db.database import Database
from service.db.models import TenantRow
from service.db.transaction import Transaction


async def isolated(tx: Transaction) -> frozenset[str]:
    """Those whose jobs share no process with another tenant's."""
    return frozenset((await tx.session.scalars(select(TenantRow.id).where(TenantRow.is_isolated))).all())


async def store_credentials(tx: Transaction) -> dict[str, str]:
    """The references of tenants that have store credentials of their own, by tenant."""
    query = select(TenantRow.id, TenantRow.store_credentials).where(TenantRow.store_credentials != "")
    return {row.id: row.store_credentials for row in await tx.session.execute(query)}


async def store_credentials_of(db: Database, tenant: str) -> str:
    """The tenant's reference; empty: it has none."""
    async with db.snapshot() as tx:
        return await credentials_reference(tx, tenant)


async def credentials_reference(tx: Transaction, tenant: str) -> str:
    """The tenant's reference; empty: it has none."""
    row = await tx.session.get(TenantRow, tenant)
    return "" if row is None else row.store_credentials
