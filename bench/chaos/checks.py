"""What the records say after the faults: nothing lost, nothing twice, no limit passed, nobody left, no change unseen. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.chaos.history import Lives, most_at_once, overlaps
from bench.chaos.load import Records
from lorafleet.contract.store_faults import OPERATORS

ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
KINDS = ("lost", "doubled", "quota_violations", "orphans", "watch_gaps", "starved", "errors")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the database holds: each job's versions and states as its events tell them, oldest first."""

    events: Mapping[str, Sequence[tuple[int, str]]]
    versions: Mapping[str, int]
    states: Mapping[str, str]
    living_hosts: frozenset[str]
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass
class Findings:
    """Evidence by kind; empty lists are what is hoped for."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    quota_violations: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    watch_gaps: list[str] = field(default_factory=list)
    starved: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        return [f"{kind}: {told}" for kind in KINDS for told in getattr(self, kind)]


def check(records: Records, stored: Stored, lives: Lives, *, max_hosts: int, max_running: Mapping[str, int]) -> Findings:
    """Every promise, from the tenants' own notes, the backend's own history, and the event log."""
    found = Findings(errors=list(records.errors))
    _ended_once(found, records, stored)
    _lived_once(found, stored, lives)
    _within_limits(found, lives, max_hosts, max_running)
    found.orphans += sorted(lives.alive - stored.living_hosts)
    for watcher, seen in records.seen.items():
        found.watch_gaps += gaps(watcher, seen, _of_tenant(stored.versions, watcher.rpartition("-")[0]))
    return found


def _ended_once(found: Findings, records: Records, stored: Stored) -> None:
    for name, times in Counter(records.accepted).items():
        if times > 1:
            found.doubled.append(f"{name} was accepted for {times} requests")
        if stored.states.get(name) not in ENDED:
            found.lost.append(f"{name} was accepted and is {stored.states.get(name, 'gone')}")
        if stored.states.get(name) == "FAILED" and stored.reasons.get(name) in OPERATORS:
            found.lost.append(f"{name} has FAILED of what only the operators can mend: {stored.reasons[name]}")
    found.doubled += [f"one request made {names}" for names in records.two_names]
    found.doubled += [f"{name} was never asked for" for name in sorted(stored.states.keys() - set(records.accepted))]
    for name, events in stored.events.items():
        ends = num_ends([state for _, state in events])
        if ends != 1 and stored.states[name] in ENDED:
            (found.lost if ends == 0 else found.doubled).append(f"{name} ended {ends} times: {[state for _, state in events]}")


def num_ends(states: Sequence[str]) -> int:
    """How often a job came to an end. Leaving an end would count as two."""
    pairs = zip(("QUEUED", *states), states, strict=False)
    return sum(before != after and (after in ENDED or before in ENDED) for before, after in pairs)


def _lived_once(found: Findings, stored: Stored, lives: Lives) -> None:
    for first, second in overlaps(lives.stays):
        found.doubled.append(f"{first.job} was in {first.run} until {first.end:.2f} and in {second.run} from {second.begin:.2f}")
    for job, runs in lives.commits.items():
        if len(runs) > 1:
            found.doubled.append(f"the artifact of {job} was committed by {runs}")
    for name, state in stored.states.items():
        if state == "SUCCEEDED" and not lives.commits.get(name):
            found.lost.append(f"{name} has SUCCEEDED without an artifact")
        if state == "FAILED" and lives.commits.get(name):
            found.lost.append(f"{name} has FAILED although {lives.commits[name]} committed its artifact")


def _within_limits(found: Findings, lives: Lives, max_hosts: int, max_running: Mapping[str, int]) -> None:
    if (most := most_at_once(lives.hosts)) > max_hosts:
        found.quota_violations.append(f"{most} runs were at work at once; the limit is {max_hosts}")
    for tenant, limit in max_running.items():
        own = [stay for stay in lives.work if stay.job.startswith(f"tenants/{tenant}/")]
        if (most := most_at_once(own)) > limit:
            found.quota_violations.append(f"{most} jobs of {tenant} were in runs at once; the limit is {limit}")


def gaps(watcher: str, seen: Sequence[tuple[str, int, str]], versions: Mapping[str, int]) -> list[str]:
    """Every version of every job once and in order, up to the one that the database holds.

    The first job of all may be shown as it was when the watch began; tenants wait for that before they submit others.
    """
    told: list[str] = []
    last: dict[str, int] = {seen[0][0]: seen[0][1] - 1} if seen else {}
    for job, version, _ in seen:
        if version != last.get(job, 0) + 1:
            told.append(f"{watcher}: version {version} of {job} after {last.get(job, 0)}")
        last[job] = version
    told += [
        f"{watcher}: {job} ended at version {version}, seen up to {last.get(job, 0)}"
        for job, version in versions.items()
        if last.get(job) != version
    ]
    return told


def _of_tenant(versions: Mapping[str, int], tenant: str) -> dict[str, int]:
    return {job: version for job, version in versions.items() if job.startswith(f"tenants/{tenant}/")}
