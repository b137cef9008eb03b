"""Whether one tenant's poison holds up the others' jobs: looks at the queue while nothing else goes wrong.

A job could start when a run is free and its tenant's quota is not used up; then the next round of admission starts it, and rounds are
held every AGAIN_S at the rarest. One that could start for longer than that, in look after look, starves.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.chaos.database import FleetDatabase
from lorafleet.contract.store_faults import OPERATORS
from lorafleet.work import name_of
from service.reconcile.admit import AGAIN_S

TICK_S = AGAIN_S
LOOK_FOR_S = 12.0  # what runs when the poison comes ends meanwhile: what waits could start then
LOOK_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Row:
    """An unfinished job."""

    name: str
    tenant: str
    state: str
    reason: str = ""
    backs_off: bool = False  # not to be started before a certain time


@dataclass(frozen=True, kw_only=True)
class Look:
    """Who could have started at that moment, and had not."""

    at_s: float
    waiting: frozenset[str]


def could_start(
    rows: Sequence[Row], num_hosts: int, max_hosts: int, max_running: Mapping[str, int], healthy: frozenset[str]
) -> frozenset[str]:
    """Queued jobs of the `healthy` tenants that nothing of their own keeps from starting."""
    if num_hosts >= max_hosts:
        return frozenset()
    queued = [row for row in rows if row.state == "QUEUED"]
    in_runs = [row.tenant for row in rows if row.state != "QUEUED"]
    has_room = {tenant for tenant in healthy if in_runs.count(tenant) < max_running[tenant]}
    return frozenset(row.name for row in queued if row.tenant in has_room and not row.backs_off and row.reason not in OPERATORS)


def starved(waits_s: Mapping[str, float], tick_s: float = TICK_S) -> list[str]:
    """Each job that could have started for longer than a tick."""
    return [f"{name} could have started for {waited_s:.1f} s" for name, waited_s in waits_s.items() if waited_s > tick_s]


def waits_s(calms: Sequence[Sequence[Look]]) -> dict[str, float]:
    """For how long each job could have started at most, from look to look without a break."""
    longest: dict[str, float] = {}
    for looks in calms:
        since_s: dict[str, float] = {}
        for look in looks:
            since_s = {name: since_s.get(name, look.at_s) for name in look.waiting}
            longest |= {name: max(longest.get(name, 0.0), look.at_s - began_s) for name, began_s in since_s.items()}
    return longest


class Watch:
    """Looks at a fleet's database, past every proxy."""

    def __init__(self, database: FleetDatabase, max_hosts: int, max_running: Mapping[str, int], healthy: frozenset[str]) -> None:
        self._database = database
        self._could_start: Callable[[Sequence[Row], int], frozenset[str]] = lambda rows, num_hosts: could_start(
            rows, num_hosts, max_hosts, max_running, healthy
        )
        self.calms: list[list[Look]] = []

    def look_for(self, seconds: float = LOOK_FOR_S) -> None:
        """One calm."""
        looks: list[Look] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            looks.append(self._look())
            time.sleep(LOOK_EVERY_S)
        self.calms.append(looks)

    def _look(self) -> Look:
        found = self._database.rows(
            "SELECT tenant, job_id, state, reason, retry_at IS NOT NULL FROM jobs WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"
        )
        rows = [
            Row(name=name_of(tenant, job_id), tenant=tenant, state=state, reason=reason, backs_off=backs_off)
            for tenant, job_id, state, reason, backs_off in found
        ]
        num_hosts = self._database.rows("SELECT count(DISTINCT host_id) FROM runs WHERE state <> 'GONE'")[0][0]
        return Look(at_s=time.monotonic(), waiting=self._could_start(rows, num_hosts))
