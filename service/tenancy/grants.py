"""Checks what a tenant may read and write in the store, by its rows, before the store is asked anything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from sqlalchemy import select

from lorafleet.contract.layout import job_root
from lorafleet.errors import InvalidSpec, Violation
from service.access.identity import OPEN, current_identity
from service.db.database import Database
from service.db.models import GrantRow
from service.db.transaction import Transaction
from service.store.uri_prefixes import Granted, problem, within


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
            violation = problem(use.field, use.uri, granted, tenant=tenant, write=use.write) or linked_out(use, granted)
            if violation is not None:
                found[violation] = None
        if found:
            raise InvalidSpec(list(found))


def linked_out(use: Use, granted: Sequence[Granted]) -> Violation | None:
    """A folder on disk that a symbolic link leads to, out of all that is granted: whoever may write where the link lies could name
    any folder by it. Links that stay within, and those above what is granted, are the operators' and fine."""
    if not use.uri.startswith("file://"):
        return None
    real = _real(use.uri)
    if any(within(real, _real(one.prefix)) for one in granted if one.may_write or not use.write):
        return None
    return Violation(field=use.field, message=f"{use.uri} leads out of what is granted, by a symbolic link; name the folder itself")


def _real(uri: str) -> str:
    """The URI without links. The last name of a prefix may be a pattern, which no file has for a name."""
    path = Path(unquote(uri.removeprefix("file://")))
    real = path.parent.resolve() / path.name if path.name.endswith("*") else path.resolve()
    return f"file://{quote(str(real), safe='/*')}"


async def of_tenant(tx: Transaction, tenant: str) -> Sequence[Granted]:
    """The tenant's grants, by prefix."""
    rows = await tx.session.scalars(select(GrantRow).where(GrantRow.tenant == tenant).order_by(GrantRow.prefix))
    return [Granted(row.prefix, may_write=row.may_write) for row in rows]
