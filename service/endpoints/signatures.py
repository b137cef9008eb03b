"""Signs what is sent to tenants' endpoints: HMAC-SHA256 over the time and the body, so that neither can be forged or sent again later.
Pure."""

import hashlib
import hmac
import secrets

TIMESTAMP = "Lorafleet-Timestamp"
SIGNATURE = "Lorafleet-Signature"
EVENT_ID = "Lorafleet-Event-Id"


def new_secret() -> str:
    """For one endpoint."""
    return f"whsec_{secrets.token_urlsafe(32)}"


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """`v1=` and the HMAC in hex; the key are the secret's letters as they stand."""
    signed = str(timestamp).encode() + b"." + body
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
