"""Holds the caller's credentials, and how it verifies the control plane. Knows no gRPC."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet.errors import InvalidInput
from lorafleet.transport.addresses import host_of


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Nothing set: plaintext and no token, as a server on loopback takes it.

    `token_file` is read at each call, so that a token that something renews there is used at once. `tls` alone trusts the
    machine's certificate authorities, `tls_ca` those in a file, `tls_ca_pem` those given as text. `tls_cert` and `tls_key` are the
    caller's own (mTLS).
    """

    token: str = field(default="", repr=False)
    token_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_ca_pem: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def is_secure(self) -> bool:
        """Whether anything asks for TLS."""
        return self.tls or any(each is not None for each in (self.tls_ca, self.tls_ca_pem, self.tls_cert))

    @property
    def has_token(self) -> bool:
        return bool(self.token) or self.token_file is not None

    def check(self, server: str) -> None:
        """Raises InvalidInput for what does not go together, and for a token that others on the way could read."""
        if self.token and self.token_file is not None:
            raise InvalidInput("token and token_file are both set; which one is meant? Set one of them")
        if self.tls_ca is not None and self.tls_ca_pem is not None:
            raise InvalidInput("tls_ca and tls_ca_pem are both set; which one is meant? Set one of them")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidInput("a client certificate needs its key, and a key its certificate; set both")
        if self.has_token and not self.is_secure and not is_local(server):
            message = (
                f"the token is not sent to {server}: without TLS anyone on the way could read it; "
                "set --tls (or --tls-ca FILE for an authority of your own), in Python Credentials(tls=True)"
            )
            raise InvalidInput(message, reason="TOKEN_OVER_PLAINTEXT")

    def bearer(self) -> str:
        """The token as it is now; empty without one. Raises InvalidInput."""
        token, where = self.token, "the token"
        if self.token_file is not None:
            token, where = read(self.token_file, "token file").decode(errors="replace"), str(self.token_file)
        token = token.strip()
        if not token and self.has_token:
            raise InvalidInput(f"{where} is empty")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise InvalidInput(f"{where} contains something other than one token: white space or characters that no token has")
        return token


def read(path: Path, what: str) -> bytes:
    """A file's content. Raises InvalidInput, which says what the file was to be."""
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path} ({what}): {error.strerror}") from None


def is_local(server: str) -> bool:
    """Whether what is sent to a gRPC target stays on this machine. Names that only a resolver knows do not."""
    if server.startswith(("unix:", "unix-abstract:")):
        return True
    scheme, _, rest = server.partition(":")
    target = rest.lstrip("/") if scheme in {"dns", "ipv4", "ipv6"} else server
    if "/" in target or "," in target:  # another resolver, or several addresses
        return False
    host = host_of(target)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
