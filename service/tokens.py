"""Run tokens: what a run shows when it reports. Derived, so that a repeated launch of a run carries the same one."""

import hashlib
import hmac


class RunTokens:
    """`<run id>.<mac>`, good for that run alone and as long as the run is not gone."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, run_id: str) -> str:
        mac = hmac.new(self._key, f"run-token:{run_id}".encode(), hashlib.sha256)
        return f"{run_id}.{mac.hexdigest()}"

    def good(self, run_id: str, token: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self.of(run_id).encode(), token.encode(errors="replace"))
