"""API tokens against the database, over real gRPC: scope, expiry, revocation, and one look-up in a few seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from lorafleet.errors import Unauthenticated
from service.access import api_tokens, token_lookup
from service.access.authenticators import Authenticators, Shown
from service.access.identity import Role
from service.access.token_lookup import BELIEVED_S, LOOKED_UP_AT_A_TIME, ApiTokens
from service.core.clock import FakeClock
from service.db.database import Database
from service.db.models import ApiTokenRow, TenantRow
from tests.service.access.served import Asked, asking


class Monotonic:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
async def ask(db: Database, monotonic: Monotonic) -> AsyncIterator[Asked]:
    async with asking(Authenticators([ApiTokens(db, monotonic=monotonic)], admins=["token:0"])) as asked:
        yield asked


@pytest.fixture
async def token(db: Database, clock: FakeClock) -> api_tokens.NewToken:
    """A submitter's, good for an hour."""
    made = api_tokens.new_token()
    async with db.transaction() as tx:
        tx.session.add(TenantRow(id="acme", create_time=tx.now, update_time=tx.now))
        await tx.session.flush()
        tx.session.add(
            ApiTokenRow(
                id=made.id,
                tenant="acme",
                role=Role.SUBMITTER.value,
                secret_sha256=made.secret_sha256,
                created_by="oidc:ada",
                create_time=tx.now,
                expire_time=tx.now + timedelta(hours=1),
            )
        )
    return made


async def test_a_token_acts_in_its_tenant_with_its_role(ask: Asked, token: api_tokens.NewToken) -> None:
    assert await ask(token.text) == f"token:{token.id} SUBMITTER in acme"


async def test_an_expired_token_is_refused(ask: Asked, token: api_tokens.NewToken, clock: FakeClock) -> None:
    assert await ask(token.text)
    clock.advance(3600)
    assert (await ask.refused(token.text)).reason == "TOKEN_EXPIRED"


async def test_a_revoked_token_is_refused_within_seconds(
    ask: Asked, token: api_tokens.NewToken, db: Database, monotonic: Monotonic
) -> None:
    assert await ask(token.text)
    async with db.transaction() as tx:
        row = await tx.session.get(ApiTokenRow, token.id)
        assert row is not None
        row.revoke_time = tx.now
    assert await ask(token.text)  # believed for a moment: no call costs a look-up
    monotonic.now += BELIEVED_S
    assert (await ask.refused(token.text)).reason == "TOKEN_REVOKED"


@pytest.mark.parametrize("change", ["secret", "id", "form"])
async def test_a_forged_token_is_refused_and_told_nothing(ask: Asked, token: api_tokens.NewToken, change: str, caplog) -> None:
    other = api_tokens.new_token()
    forged = {
        "secret": f"lft_{token.id}_{other.text.rpartition('_')[2]}",
        "id": other.text,
        "form": token.text + "0",
    }[change]
    refused = await ask.refused(forged)
    assert (refused.code, refused.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID")
    assert forged.rpartition("_")[2] not in refused.message + caplog.text


class Counted:
    """The database, and how it is asked."""

    def __init__(self, db: Database) -> None:
        self.clock, self._db = db.clock, db
        self.num, self.at_once, self.most_at_once = 0, 0, 0
        self.asked = asyncio.Semaphore(0)  # released by every look-up that begins
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Any]:
        self.num, self.at_once = self.num + 1, self.at_once + 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.release()
        try:
            await self.go_on.wait()
            async with self._db.snapshot() as tx:
                yield tx
        finally:
            self.at_once -= 1


async def known(tokens: ApiTokens, text: str) -> str:
    try:
        return (await tokens.identity(Shown(bearer=text))).principal
    except Unauthenticated as error:
        return error.reason


async def test_invented_tokens_push_out_none_that_there_are(db: Database, token: api_tokens.NewToken, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_lookup, "MOST_KEPT", 1)
    counted: Any = Counted(db)
    tokens = ApiTokens(counted)
    assert await known(tokens, token.text) == f"token:{token.id}"
    for _ in range(3):
        assert await known(tokens, api_tokens.new_token().text) == "TOKEN_INVALID"
    before = counted.num
    assert await known(tokens, token.text) == f"token:{token.id}"
    assert counted.num == before


async def test_invented_tokens_take_few_of_the_databases_connections(db: Database, token: api_tokens.NewToken, monotonic: Monotonic):
    counted: Any = Counted(db)
    tokens = ApiTokens(counted, monotonic=monotonic)
    await known(tokens, token.text)
    monotonic.now += BELIEVED_S
    counted.go_on.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        invented = [group.create_task(known(tokens, api_tokens.new_token().text)) for _ in range(20)]
        for _ in range(1 + LOOKED_UP_AT_A_TIME):
            await counted.asked.acquire()
        own = group.create_task(known(tokens, token.text))  # seen before: it waits behind none of them
        await counted.asked.acquire()
        counted.go_on.set()
    assert own.result() == f"token:{token.id}"
    assert {task.result() for task in invented} == {"TOKEN_INVALID"}
    assert counted.most_at_once == LOOKED_UP_AT_A_TIME + 1
