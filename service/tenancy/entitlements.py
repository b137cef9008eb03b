"""Administers what a tenant holds: API tokens, grants, reservations. One transaction for each call."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select

from lorafleet.errors import AlreadyExists, NotFound, PermissionDenied
from lorafleet.v1 import access_service_pb2 as pb
from service.access import api_tokens
from service.access.identity import Identity, Role
from service.core.resource_names import invalid
from service.db import audit
from service.db.database import Database
from service.db.models import ApiTokenRow, GrantRow, ReservationRow
from service.store import uri_prefixes
from service.tenancy import messages
from service.tenancy.tenants import check_text, existing
from service.tenancy.token_revocation import check_still_may, end_tokens


@dataclass(frozen=True)
class Holdings:
    """Those of all tenants."""

    db: Database

    async def create_token(self, caller: Identity, wanted: pb.ApiToken) -> tuple[ApiTokenRow, str]:
        """The token and its text, which is kept nowhere. Raises InvalidInput, NotFound, and PermissionDenied for more than
        the caller's own role."""
        tenant, role = caller.tenant or "", messages.role_of(wanted.role)
        if role is None:
            raise invalid("api_token.role", "is not set")
        if not (caller.role or Role.VIEWER).includes(role):
            raise PermissionDenied(f"{caller.principal} cannot grant the role {role.value.lower()}, which it does not have itself")
        check_text("api_token.display_name", wanted.display_name)
        expire_time = moment("api_token.expire_time", wanted, "expire_time")
        made = api_tokens.new_token()
        async with self.db.transaction() as tx:
            await existing(tx, tenant)
            if expire_time is not None and expire_time <= tx.now:
                raise invalid("api_token.expire_time", "is over already")
            await check_still_may(tx, tenant, caller, role)
            row = ApiTokenRow(
                id=made.id,
                tenant=tenant,
                display_name=wanted.display_name,
                role=role.value,
                secret_sha256=made.secret_sha256,
                created_by=caller.principal,
                create_time=tx.now,
                expire_time=expire_time,
            )
            tx.session.add(row)
            audit.about(f"tenants/{tenant}/tokens/{made.id}")
        return row, made.text

    async def revoke_token(self, tenant: str, token_id: str) -> ApiTokenRow:
        """The token, and what was made with it. Raises NotFound."""
        async with self.db.transaction() as tx:
            row = await tx.session.get(ApiTokenRow, token_id, with_for_update=True)
            if row is None or row.tenant != tenant:
                raise NotFound(f"there is no token tenants/{tenant}/tokens/{token_id}", reason="API_TOKEN_NOT_FOUND")
            row.revoke_time = row.revoke_time or tx.now
            await end_tokens(tx, tenant, api_tokens.principal(token_id), None)
        return row

    async def add_grant(self, tenant: str, wanted: pb.Grant) -> GrantRow:
        """Raises InvalidInput and NotFound."""
        prefix = wanted.prefix.rstrip("/")
        if (mistake := uri_prefixes.mistake(prefix)) is not None:
            raise invalid("grant.prefix", mistake)
        async with self.db.transaction() as tx:
            await existing(tx, tenant)
            row = await tx.session.get(GrantRow, (tenant, prefix))
            if row is None:
                row = GrantRow(tenant=tenant, prefix=prefix, create_time=tx.now)
                tx.session.add(row)
            row.may_write = wanted.may_write
        return row

    async def remove_grant(self, tenant: str, prefix: str) -> None:
        """Raises InvalidInput and NotFound."""
        check_text("prefix", prefix, at_least=1, at_most=uri_prefixes.MAX_BYTES)
        async with self.db.transaction() as tx:
            if await tx.session.get(GrantRow, (tenant, prefix.rstrip("/"))) is None:
                raise NotFound(f"{prefix[:200]!r} is not granted to tenants/{tenant}", reason="GRANT_NOT_FOUND")
            await tx.session.execute(delete(GrantRow).where(GrantRow.tenant == tenant, GrantRow.prefix == prefix.rstrip("/")))

    async def create_reservation(self, tenant: str, reservation_id: str, wanted: pb.Reservation) -> ReservationRow:
        """Raises InvalidInput, NotFound and AlreadyExists."""
        start = moment("reservation.start_time", wanted, "start_time")
        end = moment("reservation.end_time", wanted, "end_time")
        if not math.isfinite(wanted.gpus) or wanted.gpus <= 0:
            raise invalid("reservation.gpus", f"{wanted.gpus} is not more than 0")
        if start is None or end is None or end <= start:
            raise invalid("reservation.end_time", "must be after start_time, and both must be set")
        async with self.db.transaction() as tx:
            await existing(tx, tenant)
            if await tx.session.get(ReservationRow, (tenant, reservation_id)) is not None:
                raise AlreadyExists(f"tenants/{tenant}/reservations/{reservation_id} exists", reason="RESERVATION_ID_TAKEN")
            row = ReservationRow(
                tenant=tenant, reservation_id=reservation_id, gpus=wanted.gpus, start_time=start, end_time=end, create_time=tx.now
            )
            tx.session.add(row)
            tx.changed = True  # admission reads it
        return row

    async def delete_reservation(self, tenant: str, reservation_id: str) -> None:
        """Raises NotFound."""
        key = (tenant, reservation_id)
        async with self.db.transaction() as tx:
            if (row := await tx.session.get(ReservationRow, key)) is None:
                raise NotFound(f"there is no tenants/{tenant}/reservations/{reservation_id}", reason="RESERVATION_NOT_FOUND")
            await tx.session.delete(row)
            tx.changed = True

    async def page(self, kind: Any, key: Any, tenant: str, *, behind: str, size: int) -> Sequence[Any]:
        """Up to `size` of the tenant's rows of a kind, by a text that tells them apart."""
        query = select(kind).where(kind.tenant == tenant, key > behind).order_by(key).limit(size)
        async with self.db.snapshot() as tx:
            return (await tx.session.scalars(query)).all()


def moment(field: str, message: Any, name: str) -> datetime | None:
    """A time of a message; None when it is not set. Raises InvalidInput for one that no calendar has."""
    if not message.HasField(name):
        return None
    try:
        return getattr(message, name).ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise invalid(field, "is not a time in the years 1 to 9999") from None
