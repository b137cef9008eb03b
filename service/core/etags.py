"""Compares etags (AIP-154), so that a caller who has seen another state than the one that is now does nothing by mistake. Knows no
resource."""

from lorafleet.errors import Aborted


def check_etag(name: str, etag: str, wanted: str) -> None:
    """Raises Aborted (ETAG_MISMATCH) when the caller has seen another state than the one that is; empty asks for none."""
    if wanted not in {"", etag}:
        message = (
            f"etag: {name} has changed since {wanted[:80]!r}; read it again, and repeat the call with its new etag if you still want it"
        )
        raise Aborted(message, reason="ETAG_MISMATCH")
