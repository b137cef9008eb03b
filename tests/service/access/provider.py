"""An identity provider: keys, a JWKS, and tokens good and bad. Time is the machine's, as PyJWT's is."""

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

ISSUER, AUDIENCE = "https://login.example", "lorafleet"


class Provider:
    """Keys by kid; `jwks` is what it publishes."""

    def __init__(self, *kids: str) -> None:
        self.keys = {kid: rsa.generate_private_key(public_exponent=65537, key_size=2048) for kid in kids}
        self.published = set(kids)
        self.fetches = 0
        self.is_away = False

    def public_pem(self, kid: str) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.keys[kid].public_key().public_bytes(serialization.Encoding.PEM, form)

    def jwks(self) -> bytes:
        made = [
            {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}
            for kid, key in self.keys.items()
            if kid in self.published
        ]
        return json.dumps({"keys": made}).encode()

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.is_away:
            raise ConnectionError("away")
        return self.jwks()

    def token(self, kid: str = "a", *, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A good token of ada's; a claim set to None is left out."""
        headers = {"kid": kid} if headers is None else headers
        return jwt.encode(claims(**changes), self.keys[kid], algorithm=algorithm, headers=headers)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    all_of = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600, **changes}
    return {name: value for name, value in all_of.items() if value is not None}


def by_hand(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    """What no library would write."""
    return ".".join(_url_safe(part) for part in (json.dumps(header).encode(), json.dumps(body).encode(), signature))


def signing_input(header: dict[str, Any], body: dict[str, Any]) -> bytes:
    return by_hand(header, body).rpartition(".")[0].encode()


def _url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
