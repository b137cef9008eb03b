"""Holds what every loop is handed: the outside systems, the settings, and what was learnt."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from lorafleet.spec import DEFAULT_PROFILE
from service.backends.base import Backend
from service.control.admission import AdmissionPolicy, Decided, Limits
from service.control.attempts import RetryPolicy
from service.control.capacity import Resources
from service.control.compatibility import Cluster
from service.control.runs import StopPolicy
from service.control.standby import StandbyRules
from service.db.database import Database
from service.db.models import RunRow
from service.db.tenants import store_credentials_of
from service.endpoints.delivery import Sender
from service.observability.health import Pulse, Readiness
from service.planning.queued_jobs import Candidates
from service.reconcile.launch_holds import LaunchHolds
from service.reconcile.silence import Hearing
from service.runs.locations import RunLocations
from service.runs.tokens import RunTokens
from service.store.client import Store
from service.untrusted.parsing import Parser

LOCK_S = 15.0  # how long a dead process keeps a row: living ones renew their locks
ACTION_S = 60.0  # longer than any one action: the backends' and the store's own timeouts are below


@dataclass
class AdmissionMemory:
    """What the last round of admission saw and led to: it is not held again while nothing has changed. Lost at no cost."""

    seen: object = None
    held_at_s: float = 0.0
    decided: Decided = field(default_factory=Decided)
    positions_at_s: float = 0.0


@dataclass
class StandbyMemory:
    """What this process has learnt of workers that stand by. Lost at no cost."""

    shape: Cluster | None = None  # the workers of the newest run; None: none has begun
    activity: object = None  # what was queued and ran at the last look,
    idle_since_s: float = 0.0  # and since when; monotonic
    begun: set[str] = field(default_factory=set[str])
    failures: int = 0  # in a row
    retry_at_s: float = -math.inf  # monotonic
    is_off: bool = False  # none is there

    def learn(self, shape: Cluster) -> None:
        """A run has begun with such workers. Large groups do not stand by."""
        if shape.num_workers == 1:
            self.shape = shape


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Handed to every loop."""

    db: Database
    backend: Backend
    store: Store
    tokens: RunTokens
    locations: RunLocations
    candidates: Candidates
    up_since: datetime  # no run could report before; by `db.even_now`
    hearing: Hearing = field(default_factory=Hearing)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    stop: StopPolicy = field(default_factory=StopPolicy)
    pulse: Pulse = field(default_factory=Pulse)
    readiness: Readiness = field(default_factory=lambda: Readiness({}))
    limits: Limits = field(default_factory=lambda: Limits(max_running_runs=1))
    profiles: frozenset[str] = frozenset({DEFAULT_PROFILE})  # that a spec may name
    admission_policy: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    admission: AdmissionMemory = field(default_factory=AdmissionMemory)
    launch_holds: LaunchHolds = field(default_factory=LaunchHolds)
    standby: StandbyRules = field(default_factory=StandbyRules)
    standing: StandbyMemory = field(default_factory=StandbyMemory)
    endpoints: Sender = field(default_factory=Sender)
    parser: Parser = field(default_factory=Parser)
    free_memory_bytes: Callable[[], float] = lambda: math.inf  # where workers come up, as far as is known

    @property
    def capacity(self) -> Resources:
        """What there is in all."""
        return self.limits.of(self.backend.hardware()).capacity

    @property
    def heard_since(self) -> datetime:
        """Since when every run could report: by the clock as it is now, however often it was set."""
        return max(self.up_since, self.hearing.since or self.up_since) + self.db.stepped

    async def store_of(self, run: RunRow, tenant: str) -> Store:
        """The store in which a run has written: with what its tenant has now, where it ran with credentials of its tenant's own."""
        return self.store.of(await store_credentials_of(self.db, tenant)) if run.store_credentials else self.store
