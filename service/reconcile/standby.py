"""Keeps workers that stand by for a first job: in runs without jobs, which admission gives away like other warm workers.

They are launched, observed and stopped by the loops that do so with every run. What was learnt here is lost with the process
at no cost; that a run stands by is in the database.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import func, select

from lorafleet.contract.run_manifest import Standby
from lorafleet.errors import Unavailable
from lorafleet.spec import ClusterSpec
from service.control.capacity import Resources
from service.control.compatibility import Cluster
from service.control.runs import RunState
from service.control.standby import Begin, End, Moment, StandbyWorkers, decide
from service.db import held_places, hosts, queue, runs
from service.db.held_places import Held
from service.db.models import RunRow
from service.db.transaction import Transaction
from service.planning.planner import cluster_of
from service.reconcile.context import Tools
from service.runs.warm_workers import release

log = logging.getLogger(__name__)


async def stand_by_once(tools: Tools) -> bool:
    """Begins or ends one group, if it is time. Safe to kill between any two lines."""
    memory, rules = tools.standing, tools.standby
    if memory.is_off and rules.num_groups == 0:
        return False
    async with tools.db.snapshot() as tx:
        await _learn_of_failures(tools, tx)
        moment, epoch = await _look(tools, tx), await queue.admission_epoch(tx)
    memory.is_off = not moment.groups
    match decide(moment, rules):
        case Begin() as begin:
            return await _begin(tools, begin, epoch)
        case End() as end:
            return await _end(tools, end)
        case None:
            return False


async def _begin(tools: Tools, begin: Begin, epoch: int) -> bool:
    try:
        await tools.backend.ping()
    except Unavailable:
        return False  # it would hold a place without coming up
    standby = Standby(cluster=_as_asked(begin.shape), memory_gib=tools.standby.memory_gib)
    async with tools.db.transaction() as tx:
        if not await queue.lock_admission(tx, epoch) or await queue.num_waiting(tx):
            return False  # what was free may be taken
        run = await runs.add(tx, [], standby=standby)
        tx.changed = True
    tools.standing.begun.add(run.id)
    log.info("%s comes up to stand by", run.id)
    return True


async def _end(tools: Tools, end: End) -> bool:
    async with tools.db.transaction() as tx:
        run = await runs.lock(tx, end.run_id)
        if run is None or run.state == RunState.GONE.value or run.stop_at is not None or await hosts.coming(tx, run) is not None:
            return False
        release(tx, run, 0.0, end.why)
    return True


async def _look(tools: Tools, tx: Transaction) -> Moment:
    memory, now_s = tools.standing, tools.db.clock.monotonic_s()
    num_waiting, held = await queue.num_waiting(tx), await held_places.held(tx)
    activity = (num_waiting, frozenset((place.run_id, place.with_jobs) for place in held))
    if activity != memory.activity:
        memory.activity, memory.idle_since_s = activity, now_s
    return Moment(
        idle_s=None if num_waiting else now_s - memory.idle_since_s,
        wanted=memory.shape or _default_shape(tools),
        is_learned=memory.shape is not None,
        groups=[_group(run, tx) for run in await hosts.standing_by(tx)],
        free=_free(tools.capacity, held),
        free_memory_bytes=tools.free_memory_bytes(),
        retry_in_s=memory.retry_at_s - now_s,
    )


def _free(capacity: Resources, held: Sequence[Held]) -> Resources:
    for place in held:
        capacity = capacity.minus(Resources(place.gpus, place.cpus, 1))
    return capacity


def _group(run: RunRow, tx: Transaction) -> StandbyWorkers:
    standby = Standby.model_validate(run.standby)
    return StandbyWorkers(
        run_id=run.id,
        shape=cluster_of(standby.cluster),
        starts_for_s=None if run.state == RunState.IDLE.value else (tx.now - run.create_time).total_seconds(),
        leaves=run.stop_at is not None,
    )


async def _learn_of_failures(tools: Tools, tx: Transaction) -> None:
    """Of the groups that this process has begun: each that ended of itself, and without a job, puts the next off for longer."""
    memory = tools.standing
    if not memory.begun:
        return
    ended = select(RunRow).where(RunRow.id.in_(memory.begun), RunRow.state == RunState.GONE.value)
    for run in await tx.session.scalars(ended):
        memory.begun.discard(run.id)
        served = await tx.session.scalar(select(func.count()).select_from(RunRow).where(RunRow.host_id == run.id, RunRow.id != run.id))
        memory.failures = 0 if served or run.stop_reason == hosts.RELEASED else memory.failures + 1
        if memory.failures:
            wait_s = tools.standby.backoff_s(memory.failures)
            memory.retry_at_s = tools.db.clock.monotonic_s() + wait_s
            log.warning("%s ended before a job came to it; no workers stand by for the next %.0f s", run.id, wait_s)


def _default_shape(tools: Tools) -> Cluster:
    """What a spec asks for that says nothing; with a GPU where there is one."""
    hardware = tools.backend.hardware()
    gpus = 1.0 if hardware is not None and hardware.gpus >= 1 else 0.0
    return replace(cluster_of(ClusterSpec()), gpus_per_worker=gpus)


def _as_asked(shape: Cluster) -> ClusterSpec:
    return ClusterSpec(
        num_workers=shape.num_workers,
        cpus_per_worker=shape.cpus_per_worker,
        gpus_per_worker=shape.gpus_per_worker,
        memory_gib_per_worker=shape.memory_gib_per_worker,
        profile=shape.profile,
    )
