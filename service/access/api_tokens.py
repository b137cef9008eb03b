"""Makes API tokens, writes them and takes them apart. The database keeps the SHA-256 of the secret, never the secret.

`lft_<id>_<secret>`: the id finds the row without a scan, the prefix lets scanners for leaked secrets know what they found.
The secret is 256 random bits, so a plain hash is enough: there is nothing to guess that a slow one would protect.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

PREFIX = "lft_"
_FORM = re.compile(r"lft_([0-9a-f]{16})_([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """A token that was just made. `text` is shown to its owner once and kept nowhere."""

    id: str
    text: str = field(repr=False)
    secret_sha256: str


def new_token() -> NewToken:
    """A token of its own."""
    token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    return NewToken(id=token_id, text=f"{PREFIX}{token_id}_{secret}", secret_sha256=digest(secret))


def parts(text: str) -> tuple[str, str] | None:
    """Id and secret; None for what is no API token."""
    match = _FORM.fullmatch(text)
    return None if match is None else (match[1], match[2])


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret_of(secret: str, secret_sha256: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(digest(secret), secret_sha256)


def principal(token_id: str) -> str:
    """The principal of its calls, as in the audit log and `created_by`."""
    return f"token:{token_id}"
