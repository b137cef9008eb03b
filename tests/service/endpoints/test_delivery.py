"""An event goes to the address that was looked at, with TLS to the host as it is named, once, and no further."""

import hashlib
import hmac
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest

from service.endpoints import signatures
from service.endpoints.addresses import Address, parse_networks
from service.endpoints.delivery import NotDelivered, Sender
from tests.certificates import Authority
from tests.service.endpoints.receiver import receiver

LOOPBACK = parse_networks(["127.0.0.0/8"], "")


class Names:
    """A resolver: the addresses of every name, and how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = [ip_address(address) for address in addresses]
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        return self.addresses


async def refused(sender: Sender, url: str) -> NotDelivered:
    with pytest.raises(NotDelivered) as error:
        await sender.send(url, b"{}", {})
    return error.value


async def test_the_address_that_was_looked_at_is_connected_to_and_the_name_is_asked_once():
    names = Names("127.0.0.1")
    async with receiver() as there:
        sender = Sender(allowed=LOOPBACK, resolve=names)
        await sender.send(f"http://hooks.example.com:{there.port}/x?y=z", b'{"a": 1}', {"X": "y"})
        await sender.close()
    [got] = there.got
    assert (got.path, got.body, got.headers["host"], got.headers["x"]) == ("/x?y=z", b'{"a": 1}', f"hooks.example.com:{there.port}", "y")
    assert names.asked == ["hooks.example.com"]


async def test_a_name_of_an_address_that_is_not_public_is_not_called():
    async with receiver() as there:
        error = await refused(Sender(resolve=Names("127.0.0.1", "::1")), f"https://hooks.example.com:{there.port}/")
        assert (error.reason, there.got) == ("ADDRESS_REFUSED", [])
        assert (await refused(Sender(), f"https://127.0.0.1:{there.port}/")).reason == "ADDRESS_REFUSED"


async def test_a_redirect_is_not_followed():
    async with receiver(status=307, location="http://127.0.0.1:1/") as there:
        error = await refused(Sender(allowed=LOOPBACK), f"http://127.0.0.1:{there.port}/")
    assert (error.message, len(there.got)) == ("answered 307 (redirects are not followed)", 1)


@pytest.mark.parametrize(("status", "reason"), [(500, "BAD_ANSWER"), (404, "BAD_ANSWER"), (410, "GONE")])
async def test_only_a_2xx_takes_an_event(status: int, reason: str):
    async with receiver(status=status) as there:
        assert (await refused(Sender(allowed=LOOPBACK), f"http://127.0.0.1:{there.port}/")).reason == reason


async def test_an_endpoint_that_says_nothing_is_left_after_a_while():
    async with receiver(hangs=True) as there:
        error = await refused(Sender(allowed=LOOPBACK, within_s=0.2), f"http://127.0.0.1:{there.port}/")
    assert error.reason in {"TOO_SLOW", "UNREACHABLE"}


async def test_tls_is_with_the_host_as_it_is_named(tmp_path: Path):
    authority = Authority(tmp_path)
    pair = authority.issue("hooks", dns=("hooks.example.com",))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.cert, pair.key)
    trust = ssl.create_default_context(cafile=str(authority.file))
    async with receiver(server) as there:
        sender = Sender(allowed=LOOPBACK, resolve=Names("127.0.0.1"), tls=trust)
        await sender.send(f"https://hooks.example.com:{there.port}/", b"{}", {})
        assert (there.names, there.got[0].headers["host"]) == (["hooks.example.com"], f"hooks.example.com:{there.port}")
        error = await refused(sender, f"https://other.example.com:{there.port}/")  # whose certificate is another's
        assert (error.reason, len(there.got)) == ("UNREACHABLE", 1)
        await sender.close()


def test_a_signature_is_of_the_time_and_the_body():
    secret, body = "whsec_x", b'{"a": 1}'
    wanted = hmac.new(secret.encode(), b"1700000000." + body, hashlib.sha256).hexdigest()
    assert signatures.signature(secret, 1_700_000_000, body) == f"v1={wanted}"
    assert signatures.new_secret() != signatures.new_secret()
