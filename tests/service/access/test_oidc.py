"""Tokens of a provider, over real gRPC: a good one is its subject's, and every bad one is UNAUTHENTICATED with its reason."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest

from service.access.authenticators import Authenticators
from service.access.jwks import TRIED_AGAIN_AFTER_S, Keys
from service.access.oidc import OidcTokens, TokenRequirements
from tests.service.access.provider import AUDIENCE, ISSUER, Provider, by_hand, claims, signing_input
from tests.service.access.served import Asked, asking

RULES = TokenRequirements(issuer=ISSUER, audience=AUDIENCE, leeway_s=5)


@pytest.fixture(scope="module")
def keys() -> Provider:
    return Provider("a", "b")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider(keys: Provider) -> Provider:
    """Its key "b" is not published."""
    keys.published, keys.fetches, keys.is_away = {"a"}, 0, False
    return keys


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ask(provider: Provider, clock: Clock) -> AsyncIterator[Asked]:
    known = Authenticators([OidcTokens(Keys(provider.fetch, monotonic=clock), RULES)], admins=["oidc:root"])
    async with asking(known) as asked:
        yield asked


async def test_a_good_token_is_its_subjects(ask: Asked, provider: Provider) -> None:
    assert await ask(provider.token()) == "oidc:ada"
    assert await ask(provider.token(sub="root")) == "oidc:root admin"


async def test_reading_who_calls_asks_nobody_once_the_keys_are_there(ask: Asked, provider: Provider) -> None:
    for number in range(20):
        assert await ask(provider.token(sub=f"user-{number}")) == f"oidc:user-{number}"
    assert provider.fetches == 1


def _hs256_by_the_public_key(provider: Provider) -> str:
    header, body = {"alg": "HS256", "typ": "JWT", "kid": "a"}, claims()
    return by_hand(header, body, hmac.new(provider.public_pem("a"), signing_input(header, body), hashlib.sha256).digest())


def _forged(provider: Provider) -> str:
    signature = provider.token().rpartition(".")[2]
    return by_hand({"alg": "RS256", "typ": "JWT", "kid": "a"}, claims(sub="root")).rpartition(".")[0] + "." + signature


BAD: dict[str, tuple[Callable[[Provider], str], str]] = {
    "expired": (lambda by: by.token(exp=int(time.time()) - 6), "TOKEN_EXPIRED"),
    "forged": (_forged, "TOKEN_INVALID"),
    "signed by another key": (lambda by: by.token("b", headers={"kid": "a"}), "TOKEN_INVALID"),
    "wrong audience": (lambda by: by.token(aud="billing"), "WRONG_AUDIENCE"),
    "no audience": (lambda by: by.token(aud=None), "TOKEN_INVALID"),
    "wrong issuer": (lambda by: by.token(iss="https://evil.example"), "WRONG_ISSUER"),
    "no issuer": (lambda by: by.token(iss=None), "TOKEN_INVALID"),
    "alg none": (lambda by: by_hand({"alg": "none", "kid": "a"}, claims()), "TOKEN_INVALID"),
    "alg None": (lambda by: by_hand({"alg": "None", "kid": "a"}, claims()), "TOKEN_INVALID"),
    "HS256 by the public key": (_hs256_by_the_public_key, "TOKEN_INVALID"),
    "another family's algorithm": (lambda by: by_hand({"alg": "ES256", "kid": "a"}, claims(), b"0" * 64), "TOKEN_INVALID"),
    "no kid": (lambda by: by.token(headers={}), "TOKEN_INVALID"),
    "unknown kid": (lambda by: by.token("b"), "TOKEN_INVALID"),
    "kid that is a path": (lambda by: by.token(headers={"kid": "../../dev/null"}), "TOKEN_INVALID"),
    "not valid yet": (lambda by: by.token(nbf=int(time.time()) + 60), "TOKEN_NOT_YET_VALID"),
    "issued in the future": (lambda by: by.token(iat=int(time.time()) + 60), "TOKEN_NOT_YET_VALID"),
    "no expiry": (lambda by: by.token(exp=None), "TOKEN_INVALID"),
    "no time of issue": (lambda by: by.token(iat=None), "TOKEN_INVALID"),
    "expiry that is no number": (lambda by: by.token(exp=[1]), "TOKEN_INVALID"),
    "no subject": (lambda by: by.token(sub=None), "TOKEN_INVALID"),
    "empty subject": (lambda by: by.token(sub=""), "TOKEN_INVALID"),
    "subject over two lines": (lambda by: by.token(sub="a\nb"), "TOKEN_INVALID"),
    "no JWT": (lambda by: "abc", "TOKEN_INVALID"),
    "dots": (lambda by: "...", "TOKEN_INVALID"),
    "a list for a body": (lambda by: by_hand({"alg": "RS256", "kid": "a"}, [], b"x"), "TOKEN_INVALID"),  # pyright: ignore
    "an expiry of no calendar": (lambda by: by.token(exp=1e308), "TOKEN_INVALID"),
    "an expiry in a hundred years": (lambda by: by.token(exp=time.time() + 100 * 366 * 86_400), "TOKEN_INVALID"),
    "an expiry that is no number": (lambda by: by.token(exp=float("nan")), "TOKEN_INVALID"),
    "a negative expiry": (lambda by: by.token(exp=-1e308), "TOKEN_EXPIRED"),
    "infinite expiry": (lambda by: by.token(exp=float("inf")), "TOKEN_INVALID"),
    "a JWK of its own": (lambda by: by.token("b", headers={"kid": "b", "jwk": {"kty": "RSA"}, "jku": "http://evil"}), "TOKEN_INVALID"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_is_refused_with_its_reason_and_told_nowhere(name: str, ask: Asked, provider: Provider, caplog) -> None:
    make, reason = BAD[name]
    token = make(provider)
    with caplog.at_level(logging.DEBUG, logger="service"):
        refused = await ask.refused(token)
    assert (refused.code, refused.reason) == ("UNAUTHENTICATED", reason)
    for piece in token.split("."):
        assert len(piece) < 5 or piece not in refused.message + caplog.text


async def test_clocks_may_be_a_little_apart(ask: Asked, provider: Provider) -> None:
    assert await ask(provider.token(exp=int(time.time()) - 2)) == "oidc:ada"
    assert await ask(provider.token(iat=int(time.time()) + 2, nbf=int(time.time()) + 2)) == "oidc:ada"


async def test_a_rotated_key_is_fetched_once_it_is_shown(ask: Asked, provider: Provider, clock: Clock) -> None:
    assert await ask(provider.token()) == "oidc:ada"
    provider.published = {"b"}
    clock.now += TRIED_AGAIN_AFTER_S
    assert await ask(provider.token("b")) == "oidc:ada"
    refused = await ask.refused(provider.token("a"))
    assert refused.reason == "TOKEN_INVALID"


async def test_unknown_keys_do_not_make_us_a_hammer(ask: Asked, provider: Provider, clock: Clock) -> None:
    assert await ask(provider.token()) == "oidc:ada"
    for number in range(30):
        await ask.refused(provider.token(headers={"kid": f"made-up-{number}"}))
    assert provider.fetches == 1
    clock.now += TRIED_AGAIN_AFTER_S
    for number in range(30):
        await ask.refused(provider.token(headers={"kid": f"made-up-{number}"}))
    assert provider.fetches == 2


async def test_keys_serve_on_while_the_provider_is_away(ask: Asked, provider: Provider, clock: Clock) -> None:
    assert await ask(provider.token()) == "oidc:ada"
    provider.is_away = True
    clock.now += 24 * 3600
    assert await ask(provider.token()) == "oidc:ada"
    refused = await ask.refused(provider.token("b"))
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "JWKS_UNAVAILABLE"), "its key may be newer than those we have"
    assert await ask(provider.token()) == "oidc:ada"


async def test_while_keys_were_never_read_a_token_is_not_called_bad(ask: Asked, provider: Provider) -> None:
    provider.is_away = True
    refused = await ask.refused(provider.token())
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "JWKS_UNAVAILABLE")


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", "Basic YTpi"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer a"), ("authorization", "Bearer b")), "TOKEN_INVALID"),
        ((("authorization", "Bearer " + "a" * 7000),), "TOKEN_INVALID"),
    ],
)
async def test_an_authorization_that_is_no_one_bearer_token_is_refused(ask: Asked, metadata, reason: str) -> None:
    refused = await ask.refused(metadata=metadata)
    assert (refused.code, refused.reason) == ("UNAUTHENTICATED", reason)


async def test_a_caller_who_goes_at_once_does_not_keep_the_keys_from_the_others(provider: Provider, clock: Clock) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        begun.set()
        await go_on.wait()
        return await provider.fetch()

    keys = Keys(slow, monotonic=clock)
    first = asyncio.create_task(keys.key("a"))
    await begun.wait()
    first.cancel()
    second = asyncio.create_task(keys.key("a"))
    go_on.set()
    assert await second is not None
