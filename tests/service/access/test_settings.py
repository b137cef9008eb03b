"""What a server is told about access: what does not go together, and what is not safe, is refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from lorafleet.errors import FailedPrecondition, InvalidInput
from service.access.configured import report_tls_ca
from service.access.jwks import source
from service.access.settings import AccessSettings

PEM = Path("some.pem")
TLS: dict[str, Any] = {"tls_cert": PEM, "tls_key": PEM}
OIDC: dict[str, Any] = {"oidc_issuer": "https://login.example", "oidc_audience": "lorafleet", "oidc_jwks": "keys.json"}
OFF_LOOPBACK = ["0.0.0.0", "::", "192.0.2.1", "example.com"]


@pytest.mark.parametrize("host", OFF_LOOPBACK)
@pytest.mark.parametrize(
    ("given", "told"), [({}, "TLS .*authenticator"), (TLS, "set an authenticator"), (OIDC, "set TLS"), ({"api_tokens": True}, "set TLS")]
)
def test_off_loopback_tls_and_an_authenticator_are_needed(host: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(FailedPrecondition, match=told) as refused:
        AccessSettings(**given).check("127.0.0.1", host)
    assert refused.value.reason == "INSECURE_LISTEN_ADDRESS"


@pytest.mark.parametrize("host", OFF_LOOPBACK)
@pytest.mark.parametrize("authenticator", [OIDC, {"api_tokens": True}, {"tls_client_ca": PEM}])
def test_with_both_any_address_will_do(host: str, authenticator: dict[str, Any]) -> None:
    AccessSettings(**TLS, **authenticator).check(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_neither(host: str) -> None:
    AccessSettings().check(host)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_cert": PEM}, "--tls-key"),
        ({"tls_client_ca": PEM}, "--tls-client-ca needs --tls-cert"),
        ({"report_tls_ca": PEM}, "--report-tls-ca needs --tls-cert"),
        ({**OIDC, "oidc_audience": ""}, "--oidc-audience must be set"),
        ({**OIDC, "oidc_jwks": ""}, "--oidc-jwks must be set"),
        ({"admin": ["oidc:ada"]}, "--admin needs an authenticator"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        AccessSettings(**given).check("127.0.0.1")


@pytest.mark.parametrize(
    "where", ["http://login.example/keys", "ftp://login.example/keys", "/nowhere/keys.json", "http://127.0.0.1.evil.example/"]
)
def test_keys_that_others_could_send_are_refused(where: str) -> None:
    with pytest.raises(InvalidInput, match="--oidc-jwks"):
        source(where)


@pytest.mark.parametrize("where", ["https://login.example/keys", "http://127.0.0.1:1/keys", "http://localhost:1/keys", __file__])
def test_keys_come_from_a_file_https_or_loopback(where: str) -> None:
    assert callable(source(where))


def test_the_authority_that_runs_trust_is_the_one_of_now_and_stays_while_it_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    settings = AccessSettings(tls_cert=PEM, tls_key=PEM, report_tls_ca=file)
    first, second = (f"-----BEGIN CERTIFICATE-----\n{name}\n" for name in ("first", "second"))
    file.write_text("no certificate")
    with pytest.raises(InvalidInput, match="--report-tls-ca"):
        report_tls_ca(settings)
    file.write_text(first)
    authority = report_tls_ca(settings)
    assert authority() == first
    file.write_text(second)
    assert authority() == second
    file.unlink()
    assert authority() == second
    assert report_tls_ca(AccessSettings())() is None


@pytest.mark.parametrize(
    ("host", "given", "option"),
    [
        ("0.0.0.0", {}, "--listen"),
        ("::", {}, "--listen"),
        ("10.0.0.1", {"report_listen": "0.0.0.0:7602"}, "--report-listen"),
        ("10.0.0.1", {"report_listen": "[::]:7602"}, "--report-listen"),
        ("127.0.0.1", {"report_listen": "127.0.0.1:0"}, "--report-listen"),
    ],
)
def test_runs_are_not_sent_to_an_address_that_is_no_machines(host: str, given: dict[str, str], option: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^{option}: .*set --report-address"):
        AccessSettings(**given).check_report_address(host)
    AccessSettings(**given, report_address="fleet.example:7602").check_report_address(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.0.0.1", "fleet.example"])
def test_an_address_that_is_one_machines_is_good_for_runs_too(host: str) -> None:
    AccessSettings().check_report_address(host)
    AccessSettings(report_listen=f"{host}:7602").check_report_address("0.0.0.0")
