"""Transport: callers known by their certificates, certificates that change while the server serves, files that cannot serve."""

from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from lorafleet.credentials import Credentials
from lorafleet.errors import InvalidInput
from service.access.authenticators import Authenticators, CertificateNames
from service.access.tls import CertificateFiles, Reloading
from tests.certificates import Authority, Pair, server_pair
from tests.service.access.served import Asked, asking

KNOWN = Authenticators([CertificateNames()], admins=["cert:root"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(authority: Authority) -> CertificateFiles:
    pair = server_pair(authority)
    return CertificateFiles(cert=pair.cert, key=pair.key, client_ca=authority.file)


def showing(authority: Authority, pair: Pair) -> Credentials:
    return Credentials(tls_ca=authority.file, tls_cert=pair.cert, tls_key=pair.key)


@pytest.mark.parametrize(
    ("names", "principal"),
    [
        ({"cn": "ada"}, "cert:ada"),
        ({"cn": "root"}, "cert:root admin"),
        ({"cn": "ada", "dns": ("ci.example", "other.example")}, "cert:ci.example"),
        ({"cn": "ada", "dns": ("ci.example",), "uri": ("spiffe://example/ci",)}, "cert:spiffe://example/ci"),
    ],
)
async def test_a_caller_is_known_by_its_certificate(authority: Authority, names, principal: str) -> None:
    own = authority.issue("client", **names)
    async with asking(KNOWN, Reloading(files(authority)).credentials(), showing(authority, own)) as ask:
        assert await ask() == principal


async def test_a_certificate_without_a_name_names_nobody(authority: Authority) -> None:
    async with asking(KNOWN, Reloading(files(authority)).credentials(), showing(authority, authority.issue("client"))) as ask:
        assert (await ask.refused()).reason == "TOKEN_MISSING"


async def test_a_bad_token_is_not_made_good_by_a_certificate(authority: Authority) -> None:
    own = authority.issue("client", cn="ada")
    async with asking(KNOWN, Reloading(files(authority)).credentials(), showing(authority, own)) as ask:
        assert (await ask.refused("abc")).reason == "TOKEN_INVALID"


async def test_certificates_change_while_the_server_serves(authority: Authority, tmp_path: Path) -> None:
    """A rotation to another authority: who trusts the new one is answered, who trusts the old one alone is not; then to and fro."""
    served, own = files(authority), authority.issue("client", cn="ada")
    async with asking(KNOWN, Reloading(served).credentials(), showing(authority, own)) as ask:
        assert await ask() == "cert:ada"
        (tmp_path / "new").mkdir()
        newer = Authority(tmp_path / "new", "newer")
        renewed = server_pair(newer)
        served.cert.write_bytes(renewed.cert.read_bytes())  # half renewed: the key does not belong to it
        assert await ask() == "cert:ada"
        served.key.write_bytes(renewed.key.read_bytes())
        trusting = Asked(ask.server, replace(ask.credentials, tls_ca=newer.file))
        assert await trusting() == "cert:ada"
        with pytest.raises(grpc.aio.AioRpcError):
            await ask()


async def test_a_client_authority_changes_while_the_server_serves(authority: Authority, tmp_path: Path) -> None:
    served, own = files(authority), authority.issue("client", cn="ada")
    async with asking(KNOWN, Reloading(served).credentials(), showing(authority, own)) as ask:
        assert await ask() == "cert:ada"
        trusted = authority.file.read_bytes()
        (tmp_path / "roots.pem").write_bytes(trusted)
        authority.file.write_bytes(Authority(tmp_path, "newer").file.read_bytes())
        with pytest.raises(grpc.aio.AioRpcError):
            await Asked(ask.server, replace(ask.credentials, tls_ca=tmp_path / "roots.pem"))()


@pytest.mark.parametrize("broken", ["cert", "key", "both", "client_ca"])
def test_files_that_cannot_serve_are_told_at_the_start(authority: Authority, broken: str, tmp_path: Path) -> None:
    given = files(authority)
    if broken == "both":
        given = replace(given, key=authority.issue("other", cn="x").key)
    else:
        getattr(given, broken).write_text("nonsense")
    with pytest.raises(InvalidInput) as refused:
        Reloading(given).credentials()
    assert refused.value.reason == "BAD_CERTIFICATE"
