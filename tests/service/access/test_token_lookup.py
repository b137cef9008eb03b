"""API tokens against the database, over real gRPC: scope, expiry, revocation, and one look-up in a few seconds."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from service.access import api_tokens
from service.access.authenticators import Authenticators
from service.access.identity import Role
from service.access.token_lookup import BELIEVED_S, ApiTokens
from service.clock import FakeClock
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
