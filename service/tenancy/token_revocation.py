"""Ends API tokens with what their makers may: a token that outlived it would give its maker the lost rights back."""

import logging
from collections.abc import Sequence

from sqlalchemy import select

from lorafleet.errors import PermissionDenied
from service.access import api_tokens
from service.access.identity import Identity, Role
from service.db.models import ApiTokenRow, MemberRow
from service.db.transaction import Transaction

log = logging.getLogger(__name__)


async def end_tokens(tx: Transaction, tenant: str, maker: str, left: Role | None) -> None:
    """Revokes what a principal has made and does not have itself any more, and what was made with that; None: it has no role."""
    makers = [maker]
    while makers:
        made = [row for row in await _made_by(tx, tenant, makers) if left is None or not left.includes(Role(row.role))]
        for row in made:
            row.revoke_time = tx.now
            log.info("the API token %s of tenant %s ended: %s, who made it, has less than its role now", row.id, tenant, row.created_by)
        makers, left = [api_tokens.principal(row.id) for row in made], None


async def check_still_may(tx: Transaction, tenant: str, maker: Identity, role: Role) -> None:
    """Raises PermissionDenied where the maker lost the role while it asked: what ends its tokens would miss this one."""
    if maker.is_admin:
        return
    token_id = maker.principal.removeprefix(api_tokens.principal(""))
    if token_id == maker.principal:
        row = await tx.session.get(MemberRow, (tenant, maker.principal), with_for_update=True)
    else:
        row = await tx.session.get(ApiTokenRow, token_id, with_for_update=True)
        row = None if row is None or row.revoke_time is not None else row
    if row is None or not Role(row.role).includes(role):
        raise PermissionDenied(f"{maker.principal} has not the role {role.value.lower()} in tenant {tenant} any more")


async def _made_by(tx: Transaction, tenant: str, makers: Sequence[str]) -> Sequence[ApiTokenRow]:
    query = select(ApiTokenRow).where(ApiTokenRow.tenant == tenant, ApiTokenRow.created_by.in_(makers), ApiTokenRow.revoke_time.is_(None))
    return (await tx.session.scalars(query.order_by(ApiTokenRow.id).with_for_update())).all()
