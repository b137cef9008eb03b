"""What a tenant may read and write in the store: the rows, and the check that comes before the store is asked anything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from lorafleet.errors import InvalidSpec, Violation
from lorafleet.layout import job_root
from service.access.identity import OPEN, current_identity
from service.db.database import Database
from service.db.models import GrantRow
from service.db.transaction import Transaction
from service.tenancy.prefixes import Granted, problem


@dataclass(frozen=True)
class Use:
    """A URI that a spec names, where a mistake in it is to be mended, and whether it is written to."""

    field: str
    uri: str
    write: bool = False


@dataclass(frozen=True)
class Grants:
    """The grants of all tenants. `artifacts_uri` holds the folder of each tenant, which is its own without a grant."""

    db: Database
    artifacts_uri: str

    async def check(self, tenant: str, uses: Iterable[Use]) -> None:
        """Raises InvalidSpec with every use that is not granted."""
        async with self.db.snapshot() as tx:
            granted = await of_tenant(tx, tenant)
        self.check_against(granted, tenant, uses)

    def check_against(self, granted: Sequence[Granted], tenant: str, uses: Iterable[Use]) -> None:
        """The same for grants that are known.

        On an open server any caller could grant itself anything, so only tenants with grants are held to them.
        """
        if not granted and current_identity.get(OPEN) == OPEN:
            return
        granted = [Granted(job_root(self.artifacts_uri, f"tenants/{tenant}"), may_write=True), *granted]
        found: dict[Violation, None] = {}  # what the defaults of a batch are to blame for is told once
        for use in uses:
            if (violation := problem(use.field, use.uri, granted, tenant=tenant, write=use.write)) is not None:
                found[violation] = None
        if found:
            raise InvalidSpec(list(found))


async def of_tenant(tx: Transaction, tenant: str) -> Sequence[Granted]:
    """The tenant's grants, by prefix."""
    rows = await tx.session.scalars(select(GrantRow).where(GrantRow.tenant == tenant).order_by(GrantRow.prefix))
    return [Granted(row.prefix, may_write=row.may_write) for row in rows]
