"""Says who calls, as seen after authentication. Knows no tokens, certificates or database."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from lorafleet.errors import Unauthenticated


class Role(StrEnum):
    """Roles in a tenant. Each includes the permissions of those before it."""

    VIEWER = "VIEWER"
    SUBMITTER = "SUBMITTER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"

    def includes(self, other: "Role") -> bool:
        """Whether this role includes the other's permissions. (`<` would compare the letters.)"""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A caller. `tenant` and `role` are the scope of an API token, which limits it whatever its principal may do."""

    principal: str
    tenant: str | None = None
    role: Role | None = None
    is_admin: bool = False  # of the whole service


OPEN = Identity(principal="anonymous", is_admin=True)  # every caller of a server without authenticator, on loopback only

# Set around each call by service.api.interceptors.authentication. It has no default: code reached in any other way has no caller.
current_identity: ContextVar[Identity] = ContextVar("current_identity")


def caller() -> Identity:
    """The caller of the current call. Raises Unauthenticated if it was not authenticated."""
    try:
        return current_identity.get()
    except LookupError:
        raise Unauthenticated("the caller is not known", reason="TOKEN_MISSING") from None
