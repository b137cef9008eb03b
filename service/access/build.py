"""Authenticators as the settings ask for them. Imports each only where it is on: PyJWT and cryptography are slow to import."""

import grpc

from lorafleet.credentials import read
from lorafleet.errors import InvalidInput
from service.access.authenticators import Authenticator, Authenticators, CertificateNames
from service.access.settings import AccessSettings
from service.access.tls import Files, Reloading
from service.db.database import Database


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
        from service.access.oidc import OidcTokens, Rules

        rules = Rules(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            principal_claim=settings.oidc_claim,
            leeway_s=settings.oidc_leeway_s,
        )
        ways.append(OidcTokens(Keys(source(settings.oidc_jwks)), rules))
    if settings.tls_client_ca is not None:
        ways.append(CertificateNames())
    return Authenticators(ways, settings.admin or ())


def server_tls(settings: AccessSettings, *, ask_for_certificates: bool = True) -> grpc.ServerCredentials | None:
    """None: plaintext. Raises InvalidInput for files that cannot serve."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    client_ca = settings.tls_client_ca if ask_for_certificates else None
    return Reloading(Files(cert=settings.tls_cert, key=settings.tls_key, client_ca=client_ca)).credentials()


def report_tls_ca(settings: AccessSettings) -> str | None:
    """The authority that runs trust when they report, in PEM form: it travels in their manifest. Raises InvalidInput."""
    if settings.report_tls_ca is None:
        return None
    text = read(settings.report_tls_ca, "--report-tls-ca").decode(errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InvalidInput(f"--report-tls-ca: {settings.report_tls_ca} holds no certificate in PEM form")
    return text
