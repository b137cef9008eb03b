"""Counts calls per second and open streams of each tenant and run, on this replica, and refuses what is too much."""

import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass, field

from lorafleet.errors import RateLimited, ResourceExhausted
from service.db.database import Database
from service.db.models import TenantRow
from service.settings.serve_settings import CallLimits

BURST_S = 2.0  # a tenant can save up this many seconds' worth of calls
STRANGER_CALLS_PER_S = 5.0  # per caller, to a tenant where it has no permissions
RUN_REPORTS_PER_S = 20.0  # a run reports every other second from each of its processes, and at once when something happens
MAX_BUCKETS = 20_000
LOOK_AGAIN_S = 5.0  # at a tenant's own limit
STREAM_DELAY_S = 5.0
MAX_UPLOADS = 16
MAX_UPLOADS_PER_TENANT = 8
UPLOAD_DELAY_S = 1.0
MAX_AT_WORK = 2_000  # calls that are answered once
MAX_AT_WORK_PER_TENANT = 500  # whose store may be slow: at the full rate of a tenant that is a second for each
WORK_DELAY_S = 1.0
MAX_REFLECTIONS = 100
MAX_REFLECTIONS_PER_CALLER = 20
REFLECTION_DELAY_S = 5.0


@dataclass
class TokenBucket:
    """A token bucket: `left` calls at `at`, refilled with time."""

    left: float
    at: float

    def wait(self, rate: float, now: float) -> float:
        """Seconds until a call may be taken; 0: now. A clock that went back refills nothing."""
        self.left = min(size(rate), self.left + max(0.0, now - self.at) * rate)
        self.at = now
        return 0.0 if self.left >= 1.0 else (1.0 - self.left) / rate


def size(rate: float) -> float:
    """Capacity of a bucket, in calls."""
    return max(1.0, rate * BURST_S)


@dataclass
class Rates:
    """Calls per second. A tenant's own limit comes from its row; others have the server's."""

    db: Database
    limits: CallLimits
    monotonic: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[Hashable, TokenBucket] = field(default_factory=OrderedDict)
    _own: OrderedDict[str, tuple[float, float | None]] = field(default_factory=OrderedDict)  # good until, calls a second

    async def take(self, tenant: str, principal: str) -> None:
        """Counts a call to the tenant. Raises RateLimited with the time until the next is accepted."""
        stranger = self._buckets.get(("stranger", principal, tenant))
        if stranger is not None and (wait_s := stranger.wait(STRANGER_CALLS_PER_S, self.monotonic())):
            raise RateLimited(f"{principal} calls tenant {tenant} again and again, and has no right there", retry_delay_s=wait_s)
        own = await self._own_limit(tenant)
        rate = self.limits.max_requests_per_s if own is None else own
        if rate > 0:
            # Calls that name no tenant are their caller's: nobody uses up what others need to list tenants, or to make one.
            key, who = (("tenant", tenant), f"tenant {tenant}") if tenant else (("caller", principal), principal)
            self._take(key, rate, f"{who} makes more than {rate:g} calls a second; spread them, or ask for more")

    def was_a_stranger(self, tenant: str, principal: str) -> None:
        """The counted call came from a caller without permissions in the tenant: it does not count against the tenant."""
        if (bucket := self._buckets.get(("tenant", tenant))) is not None:
            bucket.left += 1.0
        self._bucket(("stranger", principal, tenant), STRANGER_CALLS_PER_S).left -= 1.0

    def take_report(self, run: str, token: str) -> None:
        """Counts a report of a run. Keyed by token too, so guessing a run's name does not use up its limit. Raises RateLimited."""
        message = f"a run reports more than {RUN_REPORTS_PER_S:g} times a second; report when the last answer says"
        self._take(("run", run[:200], token[:200]), RUN_REPORTS_PER_S, message)

    def _take(self, key: Hashable, rate: float, message: str) -> None:
        bucket = self._bucket(key, rate)
        if wait_s := bucket.wait(rate, self.monotonic()):
            raise RateLimited(message, retry_delay_s=wait_s)
        bucket.left -= 1.0

    def _bucket(self, key: Hashable, rate: float) -> TokenBucket:
        bucket = self._buckets.setdefault(key, TokenBucket(left=size(rate), at=self.monotonic()))
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)  # the least recently used: it is full again, or nearly
        return bucket

    async def _own_limit(self, tenant: str) -> float | None:
        good_until, limit = self._own.get(tenant, (0.0, None))
        now = self.monotonic()
        if now < good_until:
            return limit
        async with self.db.snapshot() as tx:
            row = await tx.session.get(TenantRow, tenant)
        limit = None if row is None else row.max_requests_per_s
        self._own[tenant] = (now + LOOK_AGAIN_S, limit)
        self._own.move_to_end(tenant)
        if len(self._own) > MAX_BUCKETS:
            self._own.popitem(last=False)
        return limit


@dataclass
class StreamSlots:
    """Calls that last, counted while they are open. `what` they are, as messages name them."""

    most: int
    most_each: int
    what: str
    reason: str
    retry_delay_s: float
    num_open: int = 0
    _of: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def open(self, who: str) -> Generator[None]:
        """Counts a call while it is open; `who`: whose it is. Raises ResourceExhausted for one too many."""
        own = self._of.get(who, 0)
        if own >= self.most_each:
            raise self._too_many(f"{who} has {own:,} {self.what} open at this server")
        if self.num_open >= self.most:
            raise self._too_many(f"{self.num_open:,} {self.what} are open at this server")
        self.num_open += 1
        self._of[who] = own + 1
        try:
            yield
        finally:
            self.num_open -= 1
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]

    def _too_many(self, message: str) -> ResourceExhausted:
        end = "which is as many as it takes; close some, or use another replica"
        return ResourceExhausted(f"{message}, {end}", reason=self.reason, retryable=True, retry_delay_s=self.retry_delay_s)


def streams(limits: CallLimits) -> StreamSlots:
    """Of watches and logs."""
    return StreamSlots(limits.max_streams, limits.max_streams_per_tenant, "watches and logs", "TOO_MANY_STREAMS", STREAM_DELAY_S)


def work() -> StreamSlots:
    """Of calls that are answered once."""
    return StreamSlots(MAX_AT_WORK, MAX_AT_WORK_PER_TENANT, "calls", "TOO_MANY_CALLS", WORK_DELAY_S)


def reflections() -> StreamSlots:
    """Of streams that ask what there is to call."""
    return StreamSlots(MAX_REFLECTIONS, MAX_REFLECTIONS_PER_CALLER, "reflection streams", "TOO_MANY_STREAMS", REFLECTION_DELAY_S)


def uploads() -> StreamSlots:
    """Of batches that come in: each is held in memory until it is whole, up to 64 MiB."""
    return StreamSlots(MAX_UPLOADS, MAX_UPLOADS_PER_TENANT, "batches", "TOO_MANY_UPLOADS", UPLOAD_DELAY_S)
