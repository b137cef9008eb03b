"""Looks after live runs: adopts what goes on, settles what is gone. After a restart this very loop is the recovery."""

import hashlib
import logging
from datetime import timedelta

from sqlalchemy import or_

from lorafleet.errors import Unavailable
from lorafleet.layout import MANIFEST, JobLayout, join
from service.backends.base import Alive, Observation, RunRef
from service.control.attempts import Gone
from service.control.lifecycle import Artifact
from service.control.runs import RunState
from service.db import locks, runs
from service.db.models import RunRow
from service.db.runs import Member
from service.db.transaction import Transaction
from service.reconcile.settle import settle
from service.reconcile.tools import LOCK_S, Tools

OBSERVE_EVERY_S = 1.0

log = logging.getLogger(__name__)


async def observe_once(tools: Tools) -> bool:
    """Observe the live run that waits longest for it. False when none is due."""
    async with tools.db.transaction() as tx:
        # A pending run is only looked at when it is to be stopped: its launch may have had an effect.
        live = or_(RunRow.state == RunState.LAUNCHED.value, (RunRow.state == RunState.PENDING.value) & RunRow.stop_at.is_not(None))
        run = await locks.take(tx, RunRow, live, RunRow.due_at <= tx.now, first=RunRow.due_at, lock_for_s=LOCK_S)
        if run is None:
            return False
        pack = await runs.members(tx, run.id)

    seen = await _observe(tools, run)
    artifacts = await _committed(tools, pack) if isinstance(seen, Gone) else {}

    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, run)
        if held is None:
            return True
        match seen:
            case Gone():
                log.info("%s is gone (%s)", run.id, seen.reason)
                await settle(tx, held, seen, artifacts, tools.retry)
            case _:
                _go_on(tx, held, seen)
    return True


def _go_on(tx: Transaction, run: RunRow, seen: Alive | None) -> None:
    run.due_at = tx.now + timedelta(seconds=OBSERVE_EVERY_S)
    if seen is not None:
        run.seen_time = tx.now
    locks.release(run)


async def _observe(tools: Tools, run: RunRow) -> Observation | None:
    """None when the backend cannot tell."""
    try:
        return await tools.backend.observe(RunRef(run_id=run.id, handle=run.handle))
    except Unavailable as error:
        log.debug("%s cannot be observed: %s", run.id, error)
        return _given_up(tools, run, error)


def _given_up(tools: Tools, run: RunRow, error: Unavailable) -> Gone | None:
    """A backend that stays away, with a run that stays silent, has lost the run; should that be wrong, the run's next
    report is refused and it stops itself."""
    known = [time for time in (run.launch_time, run.seen_time, run.report_time, tools.up_since) if time is not None]
    silent = tools.db.clock.now() - max(known)
    if run.launch_time is None or silent < timedelta(seconds=tools.stop.unreachable_s):
        return None
    return Gone(reason="RAY_HEAD_GONE", message=f"neither Ray nor the run was heard of for {silent.total_seconds():.0f} s ({error})")


async def _committed(tools: Tools, pack: list[Member]) -> dict[str, Artifact]:
    """The artifacts of jobs that ended without a word: a manifest in the store is a whole artifact."""
    found: dict[str, Artifact] = {}
    for member in pack:
        if member.place.outcome is None:
            folder = JobLayout(member.job.output_uri).adapter
            manifest = await tools.store.get(join(folder, MANIFEST))
            if manifest is not None:
                found[member.job.uid] = Artifact(uri=folder, manifest_sha256=hashlib.sha256(manifest).hexdigest())
    return found
