"""Makes the tokens that runs show when they report. Derived from the service's key, so that every replica knows them and none is stored."""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lorafleet.errors import Unauthenticated


@dataclass(frozen=True)
class RunTokens:
    """`<run id>.<expires>.<mac>`, good for that run alone, until then. A run is one attempt."""

    key: bytes = field(repr=False)
    ttl_s: float = 12 * 3600.0

    def of(self, run_id: str, now: datetime) -> str:
        expires = int((now + timedelta(seconds=self.ttl_s)).timestamp())
        return f"{run_id}.{expires}.{self._mac(run_id, str(expires))}"

    def check(self, run_id: str, token: str, now: datetime) -> str:
        """A token to go on with; empty while this one is good for longer than half its time. Compares in constant time.

        Raises Unauthenticated: BAD_RUN_TOKEN, and RUN_TOKEN_EXPIRED for one that was good.
        """
        expires, _, mac = token.removeprefix(f"{run_id}.").partition(".")
        if not hmac.compare_digest(self._mac(run_id, expires).encode(), mac.encode(errors="replace")):
            raise Unauthenticated("the run token is missing or not good for this run", reason="BAD_RUN_TOKEN")
        left = datetime.fromtimestamp(int(expires), UTC) - now  # ours, as the mac says: it is a number
        if left <= timedelta(0):
            raise Unauthenticated("the run token has expired: the run was silent for too long", reason="RUN_TOKEN_EXPIRED")
        return self.of(run_id, now) if left < timedelta(seconds=self.ttl_s / 2) else ""

    def _mac(self, run_id: str, expires: str) -> str:
        return hmac.new(self.key, f"run-token:{run_id}.{expires}".encode(errors="replace"), hashlib.sha256).hexdigest()
