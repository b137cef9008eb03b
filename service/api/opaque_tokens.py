"""Writes a few values as an opaque token, in URL-safe base64. Tokens hold no secret and give no right; they only must not surprise."""

import base64
import binascii
import hashlib
import json
from typing import Any, cast

MAX_LENGTH = 2000


class BadToken(Exception):
    """Not one of ours."""


def pack(values: dict[str, Any]) -> str:
    """The token of some values."""
    body = json.dumps(values, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_sum(body) + body).decode().rstrip("=")


def unpack(token: str) -> dict[str, Any]:
    """The values of a token. Raises BadToken for anything that `pack` did not make."""
    if len(token) > MAX_LENGTH:
        raise BadToken
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        check, body = data[:8], data[8:]
        if check != _sum(body):
            raise BadToken
        values = json.loads(body)
    except (binascii.Error, ValueError, RecursionError):
        raise BadToken from None
    if not isinstance(values, dict):
        raise BadToken
    return cast("dict[str, Any]", values)


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(b"lorafleet-token" + body).digest()[:8]
