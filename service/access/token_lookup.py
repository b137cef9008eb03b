"""Authenticates by API tokens: the row is read from the database, and believed for a few seconds."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from lorafleet.errors import Unauthenticated
from service.access import api_tokens
from service.access.authenticators import Shown
from service.access.identity import Identity, Role
from service.db.database import Database
from service.db.models import ApiTokenRow

BELIEVED_S = 5.0  # a revoked token is refused at the latest so long after
MOST_KEPT = 4096
LOOKED_UP_AT_A_TIME = 2  # of tokens that this replica has not seen: invented ones leave the database's connections to the others
_NOBODYS = api_tokens.digest("")


class ApiTokens:
    """Knows callers by `lft_...` tokens."""

    def __init__(self, db: Database, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._monotonic = monotonic
        self._kept: OrderedDict[str, tuple[float, ApiTokenRow]] = OrderedDict()
        self._unseen = asyncio.Semaphore(LOOKED_UP_AT_A_TIME)

    def takes(self, shown: Shown) -> bool:
        return shown.bearer.startswith(api_tokens.PREFIX)

    async def identity(self, shown: Shown) -> Identity:
        """Raises Unauthenticated: TOKEN_INVALID, and to who knows the secret TOKEN_REVOKED or TOKEN_EXPIRED."""
        taken = api_tokens.parts(shown.bearer)
        if taken is None:
            raise _invalid()
        token_id, secret = taken
        row = await self._row(token_id)
        if not api_tokens.is_secret_of(secret, _NOBODYS if row is None else row.secret_sha256) or row is None:
            raise _invalid()
        _check_times(row, self._db.clock.now())
        return Identity(principal=api_tokens.principal(row.id), tenant=row.tenant, role=Role(row.role))

    async def _row(self, token_id: str) -> ApiTokenRow | None:
        if (row := self._believed(token_id)) is not None:
            return row
        if token_id in self._kept:
            return await self._read(token_id)
        async with self._unseen:
            return self._believed(token_id) or await self._read(token_id)

    def _believed(self, token_id: str) -> ApiTokenRow | None:
        until, row = self._kept.get(token_id, (0.0, None))
        return row if self._monotonic() < until else None

    async def _read(self, token_id: str) -> ApiTokenRow | None:
        async with self._db.snapshot() as tx:
            row = await tx.session.get(ApiTokenRow, token_id)
        if row is None:  # not kept: whoever invents tokens would push out those that there are
            return None
        self._kept[token_id] = (self._monotonic() + BELIEVED_S, row)
        self._kept.move_to_end(token_id)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return row


def _check_times(row: ApiTokenRow, now: datetime) -> None:
    if row.revoke_time is not None:
        raise Unauthenticated(f"the API token {row.id} was revoked; make a new one", reason="TOKEN_REVOKED")
    if row.expire_time is not None and row.expire_time <= now:
        raise Unauthenticated(f"the API token {row.id} has expired; make a new one", reason="TOKEN_EXPIRED")


def _invalid() -> Unauthenticated:
    return Unauthenticated("the API token was not issued by this server", reason="TOKEN_INVALID")
