"""What tenants are set up as, for the loops."""

from sqlalchemy import select

from service.db.models import TenantRow
from service.db.transaction import Transaction


async def isolated(tx: Transaction) -> frozenset[str]:
    """Those whose jobs share no process with another tenant's."""
    return frozenset((await tx.session.scalars(select(TenantRow.id).where(TenantRow.is_isolated))).all())
