"""Keeps the public keys of an identity provider (JWKS, RFC 7517), read from a file or URL and renewed. Verifies nothing."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from lorafleet.credentials import is_local
from lorafleet.errors import InvalidInput, Unavailable

RENEWED_AFTER_S = 300.0  # a key withdrawn by the provider is refused after this time at the latest
TRIED_AGAIN_AFTER_S = 10.0  # for an unknown kid, and after a failure: forged tokens must not make us flood the provider
FETCH_TIMEOUT_S = 5.0
MOST_BYTES = 2**20

Fetch = Callable[[], Awaitable[bytes]]
Key = dict[str, Any]

log = logging.getLogger(__name__)


class Keys:
    """Keys by their id (kid). A call waits for the provider only for a key that it does not have."""

    def __init__(self, fetch: Fetch, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: dict[str, Key] | None = None
        self._fetched = self._tried = float("-inf")
        self._failed = False  # the latest attempt
        self._one_at_a_time = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> Key | None:
        """The key; None when the provider has none of that id. Raises Unavailable while nobody can tell: the provider is away,
        and the key may be newer than those that we have."""
        if self._keys is None or kid not in self._keys:
            await self._renewed()
        elif self._monotonic() - self._fetched > RENEWED_AFTER_S and self._may_try():
            self._begin()  # the old keys stay in use meanwhile, and if it fails
        known = None if self._keys is None else self._keys.get(kid)
        if known is None and (self._keys is None or self._failed):
            raise Unavailable("the identity provider's keys cannot be read; the server's log says why", reason="JWKS_UNAVAILABLE")
        return known

    def _may_try(self) -> bool:
        return self._monotonic() - self._tried >= TRIED_AGAIN_AFTER_S

    async def _renewed(self) -> None:
        """Waits for the reading under way, or one of its own. A caller who goes meanwhile does not end it for the others."""
        await asyncio.shield(self._begin())

    def _begin(self) -> "asyncio.Task[None]":
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return self._renewing

    async def _renew(self) -> None:
        async with self._one_at_a_time:
            if not self._may_try():
                return
            self._tried = self._monotonic()
            try:
                self._keys = parse(await self._fetch())
            except Exception as error:  # whatever the failure: the known keys stay in use
                log.warning("the identity provider's keys cannot be read: %s: %s", type(error).__name__, error)
                self._failed = True
                return
            self._fetched, self._failed = self._monotonic(), False


def parse(text: bytes) -> dict[str, Key]:
    """The signing keys of a JWKS that have an id. Raises ValueError. Keys for HMAC are left out: they would not be public."""
    document: object = json.loads(text)
    keys: object = cast("dict[str, object]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError('no JWKS: it has no list "keys"')
    found = [cast(Key, key) for key in cast("list[object]", keys) if isinstance(key, dict)]
    signing = [key for key in found if key.get("use", "sig") == "sig" and key.get("kty") != "oct"]
    return {key["kid"]: key for key in signing if isinstance(key.get("kid"), str)}


def source(where: str) -> Fetch:
    """Reads a file, an https:// URL, or an http:// URL on loopback. Raises InvalidInput for anything else."""
    parts = urlsplit(where)
    if parts.scheme == "https" or (parts.scheme == "http" and is_local(parts.hostname or "")):
        return lambda: _download(where, loopback=parts.scheme == "http")
    if parts.scheme == "http":
        raise InvalidInput(f"--oidc-jwks: {where} is plain http: anyone on the way could send their own keys; use https://")
    path = Path(where.removeprefix("file://")).expanduser()
    if not path.is_file():
        raise InvalidInput(f"--oidc-jwks: {where} is neither a file nor an https:// URL")
    return lambda: asyncio.to_thread(path.read_bytes)


async def _download(url: str, *, loopback: bool) -> bytes:
    import httpx  # a third of a second, and only where keys come from a URL

    client = httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, trust_env=not loopback, verify=not loopback)
    async with client, asyncio.timeout(FETCH_TIMEOUT_S), client.stream("GET", url) as response:
        response.raise_for_status()  # a redirect is an error too: it is not followed
        text = b""
        async for piece in response.aiter_bytes():
            text += piece
            if len(text) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes")
        return text
