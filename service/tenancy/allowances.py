"""Tells what a tenant may read and write, and by which credentials.

Calls go by what is known from earlier ones, and the transaction that accepts their jobs compares that with what holds then: the
database is asked about it once for all jobs of a group, and a grant that was taken away lets nothing in.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from service.core.group_commit import Coalescer
from service.db.database import Database
from service.db.tenants import credentials_reference
from service.db.transaction import Transaction
from service.store.uri_prefixes import Granted
from service.tenancy.grants import of_tenant

MAX_KNOWN = 1000  # tenants


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The grants of a tenant and the reference to its credentials; empty: the service's own."""

    granted: tuple[Granted, ...]
    store_credentials: str


class Allowances:
    """Those of the tenants that called last."""

    def __init__(self, db: Database) -> None:
        self._known = OrderedDict[str, Allowance]()
        self._fresh = Coalescer[str, Allowance](partial(_fresh, db))

    def known(self, tenant: str) -> Allowance | None:
        """As it was a while ago."""
        return self._known.get(tenant)

    async def fresh(self, tenant: str) -> Allowance:
        """As it is."""
        allowance = self._known[tenant] = await self._fresh(tenant, tenant)
        self._known.move_to_end(tenant)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return allowance


async def read(tx: Transaction, tenant: str) -> Allowance:
    """As it is in this transaction."""
    return Allowance(granted=tuple(await of_tenant(tx, tenant)), store_credentials=await credentials_reference(tx, tenant))


async def _fresh(db: Database, tenants: Sequence[str]) -> list[Allowance]:
    """For calls of one tenant."""
    async with db.snapshot() as tx:
        return [await read(tx, tenants[0])] * len(tenants)
