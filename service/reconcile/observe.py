"""Looks after live runs: adopts what goes on, settles what is gone. After a restart this very loop is the recovery."""

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import or_

from lorafleet import work
from lorafleet.contract.layout import MANIFEST, JobLayout, join
from lorafleet.errors import InvalidInput, OperatorsFault, Unavailable
from service.backends.base import Alive, Observation, RunRef
from service.control import lifecycle
from service.control.attempts import Gone
from service.control.lifecycle import Artifact, Job, JobState
from service.control.runs import COMING, RunState
from service.core import log_context
from service.db import hosts, jobs, locks, row_faults, runs
from service.db.models import RunRow
from service.db.runs import PackMember
from service.db.transaction import Transaction
from service.reconcile import locked_rows
from service.reconcile.context import ACTION_S, LOCK_S, Tools
from service.runs.settlement import settle_host
from service.runs.stops import stop_what_is_over
from service.runs.warm_workers import release
from service.store.client import Store
from service.untrusted.parsing import Parser, Unreadable

OBSERVE_EVERY_S = 1.0
AT_ONCE = 16  # runs in one step: no more requests than that go to the backend at a time
_THERE = (RunState.LAUNCHED.value, RunState.IDLE.value)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """A run that was taken to be observed, its pack at that time, and what the backend said; None when it cannot tell."""

    run: RunRow
    pack: list[PackMember]
    seen: Observation | None
    artifacts: Mapping[str, Artifact] = field(default_factory=dict[str, Artifact])  # of a run that is gone

    @property
    def is_as_before(self) -> bool:
        """Whether its jobs learn nothing: so it is with nearly every look."""
        match self.seen:
            case None:
                return True
            case Alive(leaving=""):
                before = [jobs.value(member.job) for member in self.pack] if self.run.state == RunState.LAUNCHED.value else []
                return all(_alive(job, self.seen) == job for job in before)
            case _:
                return False


async def observe_once(tools: Tools) -> bool:
    """Observe the live runs that wait longest for it. False when none is due.

    Some at once: most are as they were, and that is one write for all of them.
    """
    async with tools.db.transaction() as tx:
        # One that is still coming is only looked at when it is to be stopped: its launch may have had an effect.
        live = or_(RunRow.state.in_(_THERE), RunRow.state.in_(COMING) & RunRow.stop_at.is_not(None))
        due = (live, RunRow.due_at <= tx.now)
        live_runs = await locks.take_some(tx, RunRow, *due, first=RunRow.due_at, lock_for_s=LOCK_S, most=AT_ONCE)
        if not live_runs:
            return False
        packs = await runs.packs(tx, [run.id for run in live_runs])

    async with locks.kept(tools.db, live_runs, LOCK_S, ACTION_S):
        looks = await asyncio.gather(*(_look_or_put_off(tools, run, packs[run.id]) for run in live_runs))
    news = [look for look in looks if look is not None and not look.is_as_before]
    await _go_on_as_before(tools, [look for look in looks if look is not None and look.is_as_before])
    for look in news:
        with log_context.scope(run=look.run.id, jobs=runs.job_names(look.pack)):
            async with locked_rows.own(tools, "observe", look.run):
                await _learn(tools, look)
    return True


async def _look_or_put_off(tools: Tools, run: RunRow, pack: list[PackMember]) -> Look | None:
    """None when that raised: the run is looked at again later, and the other runs do not wait for it."""
    async with locked_rows.own(tools, "observe", run):
        look = await _look(tools, run, pack)
        _ = look.is_as_before  # what is in its rows may raise, too
        return look
    return None


async def _look(tools: Tools, run: RunRow, pack: list[PackMember]) -> Look:
    log_context.bind(run=run.id, jobs=runs.job_names(pack))
    seen = await _observe(tools, run)
    if not isinstance(seen, Gone):
        return Look(run, pack, seen)
    async with tools.db.snapshot() as tx:
        coming = await hosts.coming(tx, run)
        waiting = [] if coming is None else await runs.members(tx, coming.id)
    try:
        return Look(run, pack, seen, await _committed(tools, run, [*pack, *waiting]))
    except OperatorsFault as error:  # their next attempts find what they committed: no slot is held for that
        return Look(run, pack, Gone(reason=error.reason, message=error.message))


async def _go_on_as_before(tools: Tools, looks: Sequence[Look]) -> None:
    if not looks:
        return
    seen = {look.run.id: look.seen for look in looks}
    async with tools.db.transaction() as tx:
        for held in await locks.those_held(tx, [look.run for look in looks]):
            _go_on(tx, held, seen[held.id])


async def _learn(tools: Tools, look: Look) -> None:
    """What was seen of a run has consequences for its jobs."""
    async with tools.db.transaction() as tx:
        await hosts.lock(tx, look.run.host_id)
        held = await locks.still_held(tx, look.run)
        if held is None:
            return
        match look.seen:
            case Gone() as gone if held.state != RunState.GONE.value:  # unless its workers have begun another run meanwhile
                _log_end(held, look.pack, gone)
                await settle_host(tx, held, gone, look.artifacts, tools.retry)
            case Alive() as alive:
                await _tell(tx, tools, held, alive, look.pack)
                _go_on(tx, held, alive)
            case _:
                _go_on(tx, held, None)


def _log_end(run: RunRow, pack: list[PackMember], gone: Gone) -> None:
    if run.state == RunState.IDLE.value or run.standby is not None:
        log.info("the warm workers of %s have ended (%s)", run.host_id, run.stop_reason or gone.reason)
    elif all(member.place.outcome is not None for member in pack):
        num_good = sum(member.state is JobState.SUCCEEDED for member in pack)
        log.info("%s has ended; %d of its %d jobs succeeded", run.id, num_good, len(pack))
    else:
        log.info("%s is gone (%s)", run.id, gone.reason)


def _go_on(tx: Transaction, run: RunRow, seen: Observation | None) -> None:
    run.due_at = tx.now + timedelta(seconds=OBSERVE_EVERY_S)
    if isinstance(seen, Alive):
        run.seen_time = tx.now
        if seen.is_bounded:  # its time to start begins once it may
            run.launch_time = tx.now
    locks.release(run)


async def _tell(tx: Transaction, tools: Tools, run: RunRow, seen: Alive, pack: list[PackMember]) -> None:
    """The run's jobs hear why they do not begin, and that they must save their work because their place goes."""
    if seen.leaving and (run.state == RunState.IDLE.value or run.standby is not None) and run.stop_at is None:
        release(tx, run, tools.stop.linger_s, seen.message)
    elif run.state == RunState.LAUNCHED.value and (seen.leaving or any(_alive(job, seen) != job for job in _values(pack))):
        asked: dict[str, JobState] = {}
        for member in await runs.lock_members(tx, run.id):
            before = jobs.value(member.job)
            after = lifecycle.leave(before, seen.leaving, seen.message) if seen.leaving else _alive(before, seen)
            if jobs.save(tx, member.job, after) and seen.leaving:
                asked[member.job.uid] = before.state
        if asked:
            log.warning("%s must leave its place: %s", run.id, seen.message)
            await stop_what_is_over(tx, asked, tools.stop, seen.leaving, seen.message)


def _values(pack: Sequence[PackMember]) -> list[Job]:
    return [jobs.value(member.job) for member in pack]


def _alive(job: Job, seen: Alive) -> Job:
    """The job of a run that is there: why it does not begin, as far as that is known."""
    return lifecycle.not_begun(lifecycle.untroubled(job), seen.waiting, seen.message)


async def _observe(tools: Tools, run: RunRow) -> Observation | None:
    """None when the backend cannot tell."""
    try:
        return await tools.backend.observe(RunRef(run_id=run.host_id, handle=run.handle))
    except Unavailable as error:
        log.debug("%s cannot be observed: %s", run.id, error)
        return _given_up(tools, run, error)


def _given_up(tools: Tools, run: RunRow, error: Unavailable) -> Gone | None:
    """A backend that stays away, with a run that stays silent, has lost the run; should that be wrong, the run's next
    report is refused and it stops itself."""
    known = [time for time in (run.launch_time, run.seen_time, run.report_time, tools.heard_since) if time is not None]
    silent = tools.db.clock.now() - max(known)
    if run.launch_time is None or silent < timedelta(seconds=tools.stop.unreachable_s):
        return None
    return Gone(reason="RAY_HEAD_GONE", message=f"neither Ray nor the run was heard of for {silent.total_seconds():.0f} s ({error})")


async def _committed(tools: Tools, run: RunRow, pack: list[PackMember]) -> dict[str, Artifact]:
    """The artifacts of jobs that ended without a word: a manifest in the store is a whole artifact."""
    found: dict[str, Artifact] = {}
    if not pack:  # it stood by
        return found
    store = await tools.store_of(run, pack[0].job.tenant)
    for member in pack:
        if member.place.outcome is None:
            with row_faults.own("observe", member.job.name) as trouble:
                artifact = await _artifact(tools, store, member)
                found.update({} if artifact is None else {member.job.uid: artifact})
            if isinstance(trouble.error, Unavailable):  # that may get better, and an artifact is nothing to be wrong about
                raise trouble.error
    return found


async def _artifact(tools: Tools, store: Store, member: PackMember) -> Artifact | None:
    layout = JobLayout(member.job.output_uri)
    folder = work.artifact_folder(member.job.kind, layout.root)
    parser = tools.candidates.planner.shapes.parser
    async with parser.lanes.of(member.job.tenant):
        manifest = await store.within(layout.root).get(join(folder, MANIFEST))
        if manifest is None:
            return None
        try:
            size_bytes = await _size_bytes(parser, manifest)
        except Unreadable:  # none of ours: the next attempt tells what it is, or finds an artifact after all
            return None
    return Artifact(uri=folder, manifest_sha256=hashlib.sha256(manifest).hexdigest(), size_bytes=size_bytes)


async def _size_bytes(parser: Parser, manifest: bytes) -> int | None:
    try:
        return (await parser.manifest(manifest)).size_bytes
    except InvalidInput:
        return None  # of a newer trainer
