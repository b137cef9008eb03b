"""Turns what a call shows into an identity. Several authenticators may be on at once; the call's kind chooses. Knows no gRPC."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lorafleet.errors import Unauthenticated
from service.access.identity import Identity


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a call brings to be known by. `bearer` is a secret."""

    bearer: str = field(default="", repr=False)
    certificate_name: str = ""  # of a client certificate that TLS has verified


class Authenticator(Protocol):
    """One way to know callers."""

    def takes(self, shown: Shown) -> bool:
        """Whether this is the authenticator for such a call. No other is asked then: what it refuses is refused."""
        ...

    async def identity(self, shown: Shown) -> Identity:
        """Raises Unauthenticated; Unavailable where what it must ask does not answer."""
        ...


class Authenticators:
    """All that are on. `admins` are principals that may everything."""

    def __init__(self, ways: Sequence[Authenticator], admins: Collection[str] = ()) -> None:
        self._ways = ways
        self._admins = frozenset(admins)

    async def identity(self, shown: Shown) -> Identity:
        """The caller. Raises Unauthenticated, Unavailable."""
        for way in self._ways:
            if way.takes(shown):
                known = await way.identity(shown)
                return replace(known, is_admin=known.tenant is None and known.principal in self._admins)
        if shown.bearer:
            raise Unauthenticated("the token is not of a kind that this server accepts", reason="TOKEN_INVALID")
        message = "the call carries no token; set one with --token-file or LORAFLEET_TOKEN, in Python Client(credentials=Credentials(...))"
        raise Unauthenticated(message, reason="TOKEN_MISSING")


class CertificateNames:
    """Known by the client certificate (mTLS). A call that brings a token too is known by the token."""

    def takes(self, shown: Shown) -> bool:
        return bool(shown.certificate_name) and not shown.bearer

    async def identity(self, shown: Shown) -> Identity:
        return Identity(principal=f"cert:{shown.certificate_name}")


def certificate_name(uris: Sequence[str], dns: Sequence[str], common_name: str) -> str:
    """A certificate's one name: its first URI (SPIFFE's way), else its first DNS name, else its common name."""
    return next((name for name in (*uris[:1], *dns[:1], common_name) if name), "")
