"""Sets up the authenticators that the settings ask for. Imports each only where it is on: PyJWT and cryptography are slow to import."""

import logging
from collections.abc import Callable
from pathlib import Path

import grpc

from lorafleet.credentials import read
from lorafleet.errors import InvalidInput
from service.access.authenticators import Authenticator, Authenticators, CertificateNames
from service.access.settings import AccessSettings
from service.access.tls import CertificateFiles, Reloading
from service.db.database import Database

log = logging.getLogger(__name__)


def authenticators(settings: AccessSettings, db: Database) -> Authenticators | None:
    """None: the server is open, on loopback. Raises InvalidInput for keys that come from nowhere."""
    if not settings.has_authenticator:
        return None
    ways: list[Authenticator] = []
    if settings.api_tokens:
        from service.access.token_lookup import ApiTokens

        ways.append(ApiTokens(db))
    if settings.oidc_issuer:
        from service.access.jwks import Keys, source
        from service.access.oidc import OidcTokens, TokenRequirements

        required = TokenRequirements(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            principal_claim=settings.oidc_claim,
            leeway_s=settings.oidc_leeway_s,
        )
        ways.append(OidcTokens(Keys(source(settings.oidc_jwks)), required))
    if settings.tls_client_ca is not None:
        ways.append(CertificateNames())
    return Authenticators(ways, settings.admin or ())


def server_tls(settings: AccessSettings, *, ask_for_certificates: bool = True) -> grpc.ServerCredentials | None:
    """None: plaintext. Raises InvalidInput for files that cannot serve."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    client_ca = settings.tls_client_ca if ask_for_certificates else None
    return Reloading(CertificateFiles(cert=settings.tls_cert, key=settings.tls_key, client_ca=client_ca)).credentials()


def report_tls_ca(settings: AccessSettings) -> Callable[[], str | None]:
    """The authority that runs trust when they report, in PEM form: it travels in their manifest. It is read at each call, since
    who signs the certificates renews his own; while it cannot be read the last one counts. Raises InvalidInput, at first."""
    path = settings.report_tls_ca
    if path is None:
        return lambda: None
    last = _authority(path)

    def now() -> str:
        nonlocal last
        try:
            last = _authority(path)
        except InvalidInput as error:
            log.warning("%s; runs are given the one of before", error)
        return last

    return now


def _authority(path: Path) -> str:
    text = read(path, "--report-tls-ca").decode(errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InvalidInput(f"--report-tls-ca: {path} holds no certificate in PEM form")
    return text
