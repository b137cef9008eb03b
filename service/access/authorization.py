"""Tells whether the caller may do something in a tenant. Reads memberships; decides by `permissions.py`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lorafleet.errors import NotFound, PermissionDenied
from service.access.identity import Identity, Role, caller
from service.access.permissions import LEAST_ROLE, Permission, allows
from service.db.database import Database
from service.db.models import MemberRow

CACHE_S = 2.0  # how long a replica may use a membership that another replica has changed
MAX_CACHED = 10_000


@dataclass
class Access:
    """One replica's checks. The caller is in the call's context, set by the authentication."""

    db: Database
    monotonic: Callable[[], float] = time.monotonic
    _roles: dict[tuple[str, str], tuple[float, Role | None]] = field(default_factory=dict)  # good until, by tenant and principal
    _num_forgotten: int = 0

    async def require(self, permission: Permission, tenant: str) -> Identity:
        """The caller with its role in the tenant.

        Raises Unauthenticated; NotFound when it has none there, so that nobody learns which tenants there are; and
        PermissionDenied when its role is too small.
        """
        identity = caller()
        if identity.is_admin:
            return replace(identity, tenant=tenant, role=Role.ADMIN)
        role = await self._role(identity, tenant)
        if role is None:
            raise NotFound(f"there is no tenant {tenant}, or {identity.principal} is not a member of it", reason="TENANT_NOT_FOUND")
        if not allows(role, permission):
            raise PermissionDenied(_denied(identity, role, permission, tenant))
        return replace(identity, tenant=tenant, role=role)

    def require_admin(self) -> Identity:
        """The caller, who must be an administrator of the service. Raises Unauthenticated and PermissionDenied."""
        identity = caller()
        if not identity.is_admin:
            raise PermissionDenied(f"{identity.principal} is not an administrator of this service, as this call requires")
        return identity

    def forget(self, tenant: str) -> None:
        """A membership of the tenant has changed: this replica rereads it at once, the others after CACHE_S."""
        self._num_forgotten += 1
        for key in [key for key in self._roles if key[0] == tenant]:
            del self._roles[key]

    async def _role(self, identity: Identity, tenant: str) -> Role | None:
        if identity.tenant is not None:  # an API token's scope is all that it has
            return identity.role if identity.tenant == tenant else None
        key, now = (tenant, identity.principal), self.monotonic()
        good_until, role = self._roles.get(key, (now, None))
        if now < good_until:
            return role
        num_forgotten = self._num_forgotten
        async with self.db.snapshot() as tx:
            row = await tx.session.get(MemberRow, key)
        role = None if row is None else Role(row.role)
        if self._num_forgotten != num_forgotten:  # changed while it was read: what was read may be the old one
            return role
        if len(self._roles) >= MAX_CACHED:  # callers may ask after any number of tenants
            self._roles.clear()
        self._roles[key] = (now + CACHE_S, role)
        return role


def may_end(who: Identity, created_by: str) -> None:
    """Raises PermissionDenied unless what `created_by` made is the caller's own, or the caller may end the others' too."""
    role, tenant = who.role or Role.VIEWER, who.tenant or ""  # `require` has filled them in
    if who.principal != created_by and not allows(role, Permission.OPERATE):
        raise PermissionDenied(_denied(who, role, Permission.OPERATE, tenant))


def _denied(identity: Identity, role: Role, permission: Permission, tenant: str) -> str:
    least = LEAST_ROLE.get(permission)
    needed = "an administrator of the service" if least is None else f"at least {least.value.lower()}"
    return f"{identity.principal} is {role.value.lower()} in tenant {tenant}; this needs {needed}"
