"""Tenants and members as tests set them up."""

from service.access.identity import Role
from service.db.database import Database
from service.db.models import GrantRow, MemberRow, TenantRow


async def make_tenant(db: Database, tenant: str, **fields) -> None:
    async with db.transaction() as tx:
        tx.session.add(TenantRow(id=tenant, create_time=tx.now, update_time=tx.now, **fields))


async def make_member(db: Database, tenant: str, principal: str, role: Role) -> None:
    async with db.transaction() as tx:
        if await tx.session.get(TenantRow, tenant) is None:
            tx.session.add(TenantRow(id=tenant, create_time=tx.now, update_time=tx.now))
            await tx.session.flush()
        await tx.session.merge(MemberRow(tenant=tenant, principal=principal, role=role.value, create_time=tx.now))


async def make_grant(db: Database, tenant: str, prefix: str, *, may_write: bool = False) -> None:
    async with db.transaction() as tx:
        tx.session.add(GrantRow(tenant=tenant, prefix=prefix, may_write=may_write, create_time=tx.now))
