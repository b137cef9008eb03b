"""Who calls, as everything behind the authentication sees it. Knows no tokens, no certificates and no database."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from lorafleet.errors import Unauthenticated


class Role(StrEnum):
    """What somebody is in a tenant. Each may all that those before it may."""

    VIEWER = "VIEWER"
    SUBMITTER = "SUBMITTER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"

    def includes(self, other: "Role") -> bool:
        """Whether this role may all that the other may. (`<` would compare the letters.)"""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who calls. `tenant` and `role` are an API token's own scope: it may that much, whatever its principal may."""

    principal: str
    tenant: str | None = None
    role: Role | None = None
    is_admin: bool = False  # of the whole service


OPEN = Identity(principal="anonymous", is_admin=True)  # everybody, where no authenticator is set: on loopback only

# Set around each call by service.api.authentication. It has no default: code that is reached on another way knows nobody.
current_identity: ContextVar[Identity] = ContextVar("current_identity")


def caller() -> Identity:
    """Who makes the call that is being answered. Raises Unauthenticated when nobody has found that out."""
    try:
        return current_identity.get()
    except LookupError:
        raise Unauthenticated("who calls is not known", reason="TOKEN_MISSING") from None
