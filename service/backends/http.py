"""HTTP calls to a Ray. The one place that knows httpx, which is imported with the first call: it takes a third of a second,
and the control plane answers before."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafleet.errors import Unavailable

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 5.0
PIECE_BYTES = 64 * 1024  # of a streamed answer
TIMEOUT_S = 60.0  # the first submission to a Ray makes its agent start up


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    text: str

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        return json.loads(self.text)


class Http:
    """A pool of connections. On `loopback` neither proxies nor certificates of the environment count."""

    def __init__(self, *, loopback: bool = False, transport: "httpx.AsyncBaseTransport | None" = None) -> None:
        self._loopback = loopback
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def call(self, method: str, url: str, *, token: str | None, body: Any = None) -> Answer:
        """Raises Unavailable (RAY_UNREACHABLE) when there is no response."""
        import httpx

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            response = await self._connected().request(method, url, headers=headers, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(f"Ray at {_origin(url)} does not answer ({type(error).__name__})", reason="RAY_UNREACHABLE") from None
        return Answer(response.status_code, response.text)

    @asynccontextmanager
    async def stream(self, url: str, *, token: str | None, query: Mapping[str, str]) -> AsyncGenerator[Answer | AsyncIterator[bytes]]:
        """The body in pieces as it comes, or the whole answer when it is not a good one. Raises as `call` does, pieces too."""
        import httpx

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._connected().stream("GET", url, headers=headers, params=query) as response:
                if response.is_success:
                    yield response.aiter_bytes(PIECE_BYTES)
                else:
                    await response.aread()
                    yield Answer(response.status_code, response.text)
        except httpx.HTTPError as error:  # also what the reading of a piece raises at `yield`
            raise Unavailable(f"Ray at {_origin(url)} does not answer ({type(error).__name__})", reason="RAY_UNREACHABLE") from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _connected(self) -> "httpx.AsyncClient":
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            verify = not self._loopback  # plain http there: spares reading every root certificate
            self._client = httpx.AsyncClient(timeout=timeout, trust_env=not self._loopback, verify=verify, transport=self._transport)
        return self._client


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])
