"""Checks the options of `lorafleet serve` for authentication and transport security before anything starts."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lorafleet.errors import FailedPrecondition, InvalidInput, LorafleetError
from lorafleet.transport.addresses import host_of

_PANEL = "Access"
MAX_RUN_TOKEN_TTL_S = 366 * 86_400.0
_ANY_HOST = {"0.0.0.0", "::"}


def _option(name: str, envvar: str, help: str, **more: float) -> typer.models.OptionInfo:
    return typer.Option(name, envvar=f"LORAFLEET_{envvar}", help=help, rich_help_panel=_PANEL, **more)  # pyright: ignore


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """Without settings every caller has every permission, so the server listens on loopback only."""

    tls_cert: Annotated[Path | None, _option("--tls-cert", "SERVE_TLS_CERT", "Server certificate chain (PEM).")] = None
    tls_key: Annotated[
        Path | None, _option("--tls-key", "SERVE_TLS_KEY", "Private key (PEM). Both files are reloaded when they change.")
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        _option(
            "--tls-client-ca",
            "SERVE_TLS_CLIENT_CA",
            "CA file (PEM); clients must present a certificate that it signed, which identifies them.",
        ),
    ] = None
    oidc_issuer: Annotated[str, _option("--oidc-issuer", "OIDC_ISSUER", "Accept tokens of this OpenID Connect provider (their iss).")] = ""
    oidc_audience: Annotated[str, _option("--oidc-audience", "OIDC_AUDIENCE", "Audience that its tokens must name (aud).")] = ""
    oidc_jwks: Annotated[str, _option("--oidc-jwks", "OIDC_JWKS", "Its keys: a JWKS file or https:// URL.")] = ""
    oidc_claim: Annotated[str, _option("--oidc-claim", "OIDC_CLAIM", "Claim that names the caller.")] = "sub"
    oidc_leeway_s: Annotated[
        float, _option("--oidc-leeway-s", "OIDC_LEEWAY_S", "Allowed clock difference to the provider, in seconds.", min=0, max=300)
    ] = 30.0
    api_tokens: Annotated[bool, _option("--api-tokens", "API_TOKENS", "Accept API tokens that tenants create.")] = False
    admin: Annotated[
        list[str] | None, _option("--admin", "ADMIN", "Administrator of the service, as oidc:NAME or cert:NAME; repeatable.")
    ] = None
    report_listen: Annotated[
        str, _option("--report-listen", "REPORT_LISTEN", "HOST:PORT of a second listener without client certificates, mainly for runs.")
    ] = ""
    report_address: Annotated[
        str,
        _option(
            "--report-address",
            "REPORT_ADDRESS",
            "HOST:PORT where runs reach this server, or several as ipv4:10.0.0.1:7600,10.0.0.2:7600; unset: the listening address.",
        ),
    ] = ""
    report_tls_ca: Annotated[
        Path | None,
        _option("--report-tls-ca", "REPORT_TLS_CA", "CA file (PEM) with which runs verify --tls-cert; unset: their default CAs."),
    ] = None
    store_credentials: Annotated[
        Path | None,
        _option(
            "--store-credentials",
            "STORE_CREDENTIALS",
            "Store credentials file in AWS's format, whose profiles are assigned to tenants by name; reloaded when it changes.",
        ),
    ] = None
    run_token_ttl_s: Annotated[
        float, _option("--run-token-ttl-s", "RUN_TOKEN_TTL_S", "Seconds that a run's token is valid; renewed with its reports.", min=60)
    ] = 12 * 3600.0

    @property
    def is_secure(self) -> bool:
        return self.tls_cert is not None

    @property
    def has_authenticator(self) -> bool:
        return bool(self.oidc_issuer) or self.tls_client_ca is not None or self.api_tokens

    def check(self, *hosts: str) -> None:
        """Raises InvalidInput for what does not go together, and FailedPrecondition (INSECURE_LISTEN_ADDRESS)."""
        for fault in self.faults(*hosts):
            raise fault

    def faults(self, *hosts: str) -> Iterator[LorafleetError]:
        """All that `check` could raise."""
        if (self.tls_cert is None) != (self.tls_key is None):
            yield InvalidInput("--tls-cert and --tls-key belong together: set both")
        for option, needs in (("--tls-client-ca", self.tls_client_ca), ("--report-tls-ca", self.report_tls_ca)):
            if needs is not None and not self.is_secure:
                yield InvalidInput(f"{option} needs --tls-cert and --tls-key")
        oidc = {"--oidc-issuer": self.oidc_issuer, "--oidc-audience": self.oidc_audience, "--oidc-jwks": self.oidc_jwks}
        missing = [option for option, value in oidc.items() if not value]
        if 0 < len(missing) < len(oidc):
            yield InvalidInput(f"{' and '.join(missing)} must be set too: without it a token would not be checked")
        if self.admin and not self.has_authenticator:
            yield InvalidInput("--admin needs an authenticator that can identify it: set --oidc-issuer or --tls-client-ca")
        if not 60 <= self.run_token_ttl_s <= MAX_RUN_TOKEN_TTL_S:
            yield InvalidInput(f"--run-token-ttl-s: {self.run_token_ttl_s:g} is not between a minute and a year, in seconds")
        for host in hosts:
            yield from self._insecure(host)

    def check_report_address(self, host: str) -> None:
        """Raises InvalidInput where runs would be told to report to an address that is good for listening alone."""
        for fault in self.report_faults(host):
            raise fault

    def report_faults(self, host: str) -> Iterator[LorafleetError]:
        """What `check_report_address` could raise."""
        option, where = ("--report-listen", self.report_listen) if self.report_listen else ("--listen", host)
        is_any = host_of(where) in _ANY_HOST or (bool(self.report_listen) and where.endswith(":0"))
        if not self.report_address and is_any:
            yield InvalidInput(f"{option}: runs cannot report to {where}; set --report-address to where they reach this server")

    def _insecure(self, host: str) -> Iterator[LorafleetError]:
        lacking: list[str] = []
        if not self.is_secure:
            lacking.append("TLS (--tls-cert and --tls-key)")
        if not self.has_authenticator:
            lacking.append("an authenticator (--oidc-issuer, --tls-client-ca or --api-tokens)")
        if lacking and not is_loopback(host):
            message = f"--listen: {host} is not a loopback address; set {' and '.join(lacking)}, or listen on 127.0.0.1"
            yield FailedPrecondition(message, reason="INSECURE_LISTEN_ADDRESS")


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
