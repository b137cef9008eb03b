"""`lorafleet serve` as a process with TLS and an authenticator: who has a good token is answered, the others are refused."""

from pathlib import Path

import pytest

from lorafleet.client import Client, Credentials
from lorafleet.errors import NotFound, Unauthenticated
from tests.certificates import Authority, server_pair
from tests.service.access.provider import AUDIENCE, ISSUER, Provider
from tests.service.serving import served


def test_a_server_with_tls_and_oidc_knows_its_admin_and_nobody_else(tmp_path: Path) -> None:
    authority, provider = Authority(tmp_path), Provider("a")
    pair = server_pair(authority)
    (tmp_path / "jwks.json").write_bytes(provider.jwks())
    options = {
        "--ray-address": "http://127.0.0.1:1",  # joins a Ray that is not there
        "--tls-cert": pair.cert,
        "--tls-key": pair.key,
        "--oidc-issuer": ISSUER,
        "--oidc-audience": AUDIENCE,
        "--oidc-jwks": tmp_path / "jwks.json",
        "--admin": "oidc:ada",
    }

    def jobs(server: str, token: str) -> list[object]:
        with Client(server, tenant="acme", credentials=Credentials(token=token, tls_ca=authority.file)) as client:
            return list(client.list())

    with served(tmp_path / "state", *(str(part) for option in options.items() for part in option)) as server:
        assert jobs(server.address, provider.token()) == []
        for token, reason in (("", "TOKEN_MISSING"), ("abc", "TOKEN_INVALID"), (provider.token(aud="x"), "WRONG_AUDIENCE")):
            with pytest.raises(Unauthenticated) as refused:
                jobs(server.address, token)
            assert refused.value.reason == reason
        with pytest.raises(NotFound):
            jobs(server.address, provider.token(sub="eve"))
