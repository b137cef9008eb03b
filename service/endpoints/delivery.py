"""Sends one signed event to a tenant's endpoint. The address that is connected to is the one that was looked at; no redirect is followed.

TLS is with the host as it is named, whatever its address, and each delivery has a connection of its own: one that is kept could be another
host's at the same address.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lorafleet.errors import InvalidInput, LorafleetError
from lorafleet.transport.addresses import joined
from service.endpoints.addresses import Address, Network, Target, chosen, literal_address, parse_url

if TYPE_CHECKING:
    import httpx

WITHIN_S = 10.0  # for all of it
GONE = 410

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class NotDelivered(LorafleetError):
    """The endpoint has not taken the event; `reason` says why."""

    reason = "NOT_DELIVERED"
    retryable = True


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a name, by the machine's resolver. Raises NotDelivered."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise NotDelivered(f"{host} has no address that can be found", reason="NAME_NOT_FOUND") from None
    return [ip_address(str(where[0]).partition("%")[0]) for *_, where in found]


@dataclass
class Sender:
    """Sends to endpoints. `allowed`: networks beside the public internet."""

    allowed: tuple[Network, ...] = ()
    resolve: Resolve = resolve
    tls: ssl.SSLContext | None = None  # None: what this machine trusts
    within_s: float = WITHIN_S
    _client: "httpx.AsyncClient | None" = field(default=None, repr=False)

    async def check(self, url: str) -> None:
        """Raises InvalidInput for a URL that nothing is sent to, as far as is known now: a name without address may have one later."""
        target = parse_url(url)
        if (address := literal_address(target.host)) is not None:
            chosen([address], target, self.allowed)
            return
        try:
            addresses = await self.resolve(target.host, target.port)
        except NotDelivered:
            return
        chosen(addresses, target, self.allowed)

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Raises NotDelivered unless the endpoint answers with a 2xx."""
        try:
            async with asyncio.timeout(self.within_s):
                status = await self._post(parse_url(url), body, headers)
        except TimeoutError:
            raise NotDelivered(f"no answer within {self.within_s:g} s", reason="TOO_SLOW") from None
        except InvalidInput as error:
            raise NotDelivered(error.message, reason=error.reason) from None
        if not 200 <= status < 300:
            is_elsewhere = " (redirects are not followed)" if 300 <= status < 400 else ""
            raise NotDelivered(f"answered {status}{is_elsewhere}", reason="GONE" if status == GONE else "BAD_ANSWER")

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _post(self, target: Target, body: bytes, headers: Mapping[str, str]) -> int:
        import httpx

        literal = literal_address(target.host)
        addresses = [literal] if literal is not None else await self.resolve(target.host, target.port)
        address = chosen(addresses, target, self.allowed)
        url = httpx.URL(f"{target.scheme}://{joined(str(address), target.port)}{target.path}")
        client = await self._connected()
        try:
            request = client.build_request(
                "POST",
                url,
                content=body,
                headers={**headers, "Host": target.authority, "Content-Type": "application/json", "User-Agent": "lorafleet"},
                extensions={"sni_hostname": target.host},
            )
            response = await client.send(request, stream=True, follow_redirects=False)
            await response.aclose()  # what it says beside its status is nobody's business
        except httpx.HTTPError as error:
            raise NotDelivered(f"{target.host} does not answer ({type(error).__name__})", reason="UNREACHABLE") from None
        return response.status_code

    async def _connected(self) -> "httpx.AsyncClient":
        import httpx

        if self._client is None:
            tls = self.tls or await asyncio.to_thread(ssl.create_default_context)
            limits = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.AsyncClient(verify=tls, trust_env=False, limits=limits, timeout=self.within_s)
        return self._client
