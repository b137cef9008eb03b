"""Tells which URLs and addresses tenants may have the service call. Pure: who resolves names and connects is not its business.

A tenant's URL is the service's own request from inside its network. So an address must be one of the public internet, or lie in a network
that the operators allow, whatever name it goes by; and what is connected to is the address that was looked at here.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from lorafleet.errors import InvalidInput
from lorafleet.transport.addresses import joined

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2000
_NAME = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,251}[a-z0-9])?")
_HARMLESS = re.compile(r"[\x21-\x7e]*")  # of a URL: no space, no control character, nothing that is not ASCII
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL taken apart."""

    scheme: str  # https, or http
    host: str  # a name, or an address without brackets
    port: int
    path: str  # with the query

    @property
    def authority(self) -> str:
        """What the header Host says."""
        whole = joined(self.host, self.port)
        return whole.removesuffix(f":{self.port}") if self.port == {"https": 443, "http": 80}[self.scheme] else whole


def parse_url(url: str) -> Target:
    """Raises InvalidInput."""
    if len(url) > MAX_URL or not _HARMLESS.fullmatch(url):
        raise InvalidInput(f"is longer than {MAX_URL} characters, or has one that no URL has")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise InvalidInput("is no URL") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise InvalidInput("is no https:// URL with a host")
    if "@" in parts.netloc or parts.fragment or port == 0:
        raise InvalidInput("has a user, a password, a fragment or the port 0, which are not sent")
    if literal_address(host) is None and not _NAME.fullmatch(host):
        raise InvalidInput("has a host that is neither a name nor an address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme=parts.scheme, host=host, port=port or {"https": 443, "http": 80}[parts.scheme], path=path)


def literal_address(host: str) -> Address | None:
    """The address that a host is; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def parse_networks(texts: Iterable[str], option: str) -> tuple[Network, ...]:
    """Raises InvalidInput."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise InvalidInput(f"{option}: {error}; write a network as 10.1.0.0/16, or one address") from None


def permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether the service connects to it for a tenant: it is public, as is every address that it stands for, or it is allowed."""
    if any(address in network for network in allowed):
        return True
    return all(_is_public(each) for each in (address, *_meant(address)))


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and (not address.is_reserved or address in _NAT64)


def _meant(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address is another way to write."""
    if isinstance(address, IPv4Address):
        return []
    embedded = [IPv4Address(int(address) & 0xFFFFFFFF)] if address in _NAT64 else []
    teredo = list(address.teredo or ())
    return [*embedded, *teredo, *(each for each in (address.ipv4_mapped, address.sixtofour) if each is not None)]


def chosen(addresses: Sequence[Address], target: Target, allowed: Sequence[Network]) -> Address:
    """The address to connect to, of those that the host's name stands for. Raises InvalidInput (ADDRESS_REFUSED)."""
    for address in addresses:
        if permitted(address, allowed) and (target.scheme == "https" or any(address in network for network in allowed)):
            return address
    if target.scheme == "http" and any(permitted(address, allowed) for address in addresses):
        message = f"{target.host}: http:// is for networks that the operators allow alone; write https://"
        raise InvalidInput(message, reason="ADDRESS_REFUSED")
    raise InvalidInput(f"{target.host} has no public address; the operators can allow others (--webhook-allow)", reason="ADDRESS_REFUSED")
