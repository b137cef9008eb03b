"""The provider's keys from a URL, over real HTTP: rotated, away, broken, and never asked for more than needed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc.aio
import pytest

from lorafleet.errors import InvalidInput
from lorafleet.transport.rpc_errors import from_rpc_error
from service.access.authenticators import Authenticators
from service.access.jwks import MOST_BYTES, RENEWED_AFTER_S, TRIED_AGAIN_AFTER_S, Keys, source
from service.access.oidc import OidcTokens, TokenRequirements
from tests.service.access.provider import AUDIENCE, ISSUER, Provider
from tests.service.access.served import Asked, asking
from tests.service.access.test_oidc import Clock


@dataclass
class Site:
    """Publishes the provider's keys, or what a test says."""

    provider: Provider
    url: str = ""
    fetches: int = 0
    answer: tuple[int, bytes] | None = None  # in place of the keys

    def respond(self) -> tuple[int, bytes]:
        self.fetches += 1
        return self.answer or (200, self.provider.jwks())


@contextmanager
def _site(provider: Provider) -> Iterator[Site]:
    site = Site(provider)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = site.respond()
            self.send_response(status)
            if status == 302:
                self.send_header("location", f"{site.url}/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}/jwks"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def keys() -> Provider:
    return Provider("a", "b")


@pytest.fixture
def site(keys: Provider) -> Iterator[Site]:
    keys.published = {"a"}
    with _site(keys) as site:
        yield site


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ask(site: Site, clock: Clock) -> AsyncIterator[Asked]:
    rules = TokenRequirements(issuer=ISSUER, audience=AUDIENCE)
    async with asking(Authenticators([OidcTokens(Keys(source(site.url), monotonic=clock), rules)])) as asked:
        yield asked


async def test_a_rotation_is_picked_up_by_the_first_token_of_the_new_key(ask: Asked, site: Site, clock: Clock) -> None:
    assert await ask(site.provider.token("a")) == "oidc:ada"
    site.provider.published = {"a", "b"}
    clock.now += TRIED_AGAIN_AFTER_S
    assert await ask(site.provider.token("b")) == "oidc:ada"
    assert await ask(site.provider.token("a")) == "oidc:ada"
    assert site.fetches == 2


async def test_a_key_that_was_taken_back_is_refused_after_some_minutes(ask: Asked, site: Site, clock: Clock) -> None:
    assert await ask(site.provider.token("a")) == "oidc:ada"
    site.provider.published = {"b"}
    clock.now += RENEWED_AFTER_S + 1
    await ask(site.provider.token("a"))  # looks anew, behind this call
    for _ in range(1000):
        if refused := await _refusal(ask, site.provider.token("a")):
            break
    assert refused == "TOKEN_INVALID"
    assert site.fetches == 2


BROKEN = {
    "an error": (503, b""),
    "a redirect": (302, b""),
    "a page": (200, b"<html>sign in</html>"),
    "no keys": (200, b"{}"),
    "a list": (200, b"[]"),
    "more than a provider has": (200, b'{"keys": [' + b" " * MOST_BYTES + b"]}"),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_while_the_url_is_broken_known_keys_serve_and_an_unknown_one_is_not_called_bad(
    answer: tuple[int, bytes], ask: Asked, site: Site, clock: Clock
) -> None:
    assert await ask(site.provider.token("a")) == "oidc:ada"
    site.answer = answer
    clock.now += RENEWED_AFTER_S + 1
    refused = await ask.refused(site.provider.token("b"))  # its key may be newer than what we have
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "JWKS_UNAVAILABLE")
    assert await ask(site.provider.token("a")) == "oidc:ada"
    assert site.fetches == 2

    site.answer, site.provider.published = None, {"a", "b"}
    clock.now += TRIED_AGAIN_AFTER_S
    assert await ask(site.provider.token("b")) == "oidc:ada"


async def test_many_calls_at_once_with_keys_that_nobody_has_ask_once(ask: Asked, site: Site, clock: Clock) -> None:
    for fetches in (1, 2):
        refusals = await asyncio.gather(*(ask.refused(site.provider.token("b", headers={"kid": f"made-up-{n}"})) for n in range(20)))
        assert {refused.reason for refused in refusals} == {"TOKEN_INVALID"}
        assert site.fetches == fetches
        clock.now += TRIED_AGAIN_AFTER_S


async def test_a_url_that_is_down_is_asked_no_more_than_one_that_answers(ask: Asked, site: Site, clock: Clock) -> None:
    site.answer = (500, b"")
    for fetches in (1, 2):
        refusals = await asyncio.gather(*(ask.refused(site.provider.token("a")) for _ in range(20)))
        assert {(refused.code, refused.reason) for refused in refusals} == {("UNAVAILABLE", "JWKS_UNAVAILABLE")}
        assert site.fetches == fetches
        clock.now += TRIED_AGAIN_AFTER_S
    site.answer = None
    assert await ask(site.provider.token("a")) == "oidc:ada"


@pytest.mark.parametrize("where", ["http://login.example/jwks", "ftp://login.example/jwks", "/no/such/file", "https//login.example"])
def test_what_others_could_change_on_the_way_or_what_is_not_there_is_refused(where: str) -> None:
    with pytest.raises(InvalidInput, match="--oidc-jwks"):
        source(where)


async def _refusal(ask: Asked, token: str) -> str:
    """The reason; empty when the token is good."""
    try:
        await ask(token)
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason
    return ""
