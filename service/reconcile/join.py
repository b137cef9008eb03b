"""Lets queued jobs join active runs that have room, while no run is free.

Like admission it decides outside the transaction and applies what still holds. A joiner is a member of the run from then
on; the run hears of it with every answer until it speaks of it, and should it end before, the joiner is queued again.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import OperatorsFault
from service.control import joining, lifecycle, packing
from service.control.admission import Wait, usage_of
from service.control.joining import Join, TrainingRun
from service.control.lifecycle import JobState
from service.control.packing import Candidate
from service.control.placing import Tenancy, tenancy
from service.control.quotas import Budgets
from service.db import hosts, jobs, queue, row_faults, runs
from service.db.models import JobRow, RunJobRow, RunRow
from service.db.runs import PackMember
from service.db.tenants import store_credentials_of
from service.db.transaction import Transaction
from service.planning.queued_jobs import with_credentials
from service.reconcile import launch_holds
from service.reconcile.admission_input import Seen
from service.reconcile.context import Tools
from service.runs.progress import progress_of

log = logging.getLogger(__name__)


async def join_once(tools: Tools, seen: Seen) -> bool:
    """Adds the jobs that may join now to active runs. Call it while nothing else can start: a free run would be sooner.

    `seen` is what a round of admission has decided on that has started nothing.
    """
    limits = tools.candidates.planner.policy.limits
    async with tools.db.snapshot() as tx:
        training = [run for run in await _training(tools, tx) if joining.has_room(run, limits)]
    if not training:
        return False
    fitting, _ = packing.sift((await tools.candidates.of_queue(tools.db)).candidates, limits, tools.backend.hardware())
    budgets = Budgets(quotas=seen.situation.quotas, usage=usage_of(seen.situation.live))
    decided = await asyncio.to_thread(joining.joins, fitting, training, limits, budgets)
    return bool(decided) and await _apply(tools, decided, seen.epoch)


async def _training(tools: Tools, tx: Transaction) -> list[TrainingRun]:
    found = {run: await runs.members(tx, run.id) for run in await hosts.open_to_joiners(tx)}
    if not found:
        return []
    guests, closed = defaultdict[str, set[Tenancy]](set), set[str]()  # who may be with an unknown guest is unknown
    for host_id, job in await hosts.guests(tx, [run.host_id for run in found]):
        with row_faults.own("joins", job.name) as trouble:
            guest = tools.candidates.of_row(job)
            guests[host_id].add(tenancy(guest.tenant, guest.sharing))
        if trouble:
            closed.add(host_id)
    training: list[TrainingRun] = []
    for run, pack in found.items():
        if run.host_id in closed:
            continue
        with row_faults.own("joins", run.id):  # one that cannot be told about takes nobody in
            training += [_as_it_trains(tools, run, pack, guests[run.host_id])] if _trains(pack) else []
    return training


def _trains(pack: Sequence[PackMember]) -> bool:
    return any(member.state is JobState.RUNNING and member.place.outcome is None for member in pack)


def _as_it_trains(tools: Tools, run: RunRow, pack: Sequence[PackMember], guests: set[Tenancy]) -> TrainingRun:
    there = [member for member in pack if member.place.outcome is None and member.job.end_time is None]
    members = tuple(with_credentials(tools.candidates.of_row(member.job), run.store_credentials) for member in there)
    remaining = max((_remaining_steps(member, known) for member, known in zip(there, members, strict=True)), default=0)
    return TrainingRun(run_id=run.id, members=members, tenancy=frozenset(guests), remaining_steps=remaining)


def _remaining_steps(member: PackMember, known: Candidate) -> int:
    return known.max_steps - progress_of(member.job.progress).step


async def _apply(tools: Tools, decided: Sequence[Join], epoch: int) -> bool:
    async with tools.db.snapshot() as tx:
        found = await queue.still_waiting(tx, [join.uid for join in decided])
    written = {uid for uid, row in found.items() if await _written(tools, row)}
    async with tools.db.transaction() as tx:
        if not await queue.lock_admission(tx, epoch):
            tools.admission.seen = None
            return True
        still_open = {run.id for run in await hosts.open_to_joiners(tx)}
        found = await queue.still_waiting(tx, sorted(written))
        joined = [_join(tx, tools, join, found) for join in decided if join.uid in found and join.run_id in still_open]
    return any(joined)


def _join(tx: Transaction, tools: Tools, join: Join, found: Mapping[str, JobRow]) -> bool:
    row = found[join.uid]
    with row_faults.own("joins", row.name) as trouble:
        jobs.save(tx, row, lifecycle.admit(jobs.value(row)))
        tx.session.add(RunJobRow(run_id=join.run_id, job_uid=row.uid, attempt=row.attempt, joining=True))
        log.info("%s joins %s", row.name, join.run_id)
    if trouble.error:
        tools.candidates.set_aside(row.uid, trouble.error)
    return not trouble


def _inputs(spec: Mapping[str, Any]) -> list[str]:
    base = spec["base_model"]
    vae = [base["vae_uri"]] if base.get("vae_uri") else []
    prior = [spec["dataset"]["regularization"]["uri"]] if spec["dataset"].get("regularization") else []
    start = [spec["adapter"]["start"]["uri"]] if spec.get("adapter", {}).get("start") else []
    merge: Mapping[str, Any] = spec.get("output", {}).get("merge") or {}
    merged = [each["uri"] for each in merge.get("adapters", ())]
    return [base["uri"], *vae, *base.get("parts", {}).values(), spec["dataset"]["uri"], *prior, *start, *merged]


async def _written(tools: Tools, row: JobRow) -> bool:
    """Leaves the spec beside the job's work, as a launch does. A store that refuses is a launch's to report, and tell the regions."""
    with row_faults.own("joins", row.name) as trouble:
        store = tools.store.of(await store_credentials_of(tools.db, row.tenant))
        if await store.regions([*_inputs(row.spec), row.output_uri]):
            return False  # what goes on has not been told where they are: a run of its own is
        await store.within(row.output_uri).put(JobLayout(row.output_uri).spec, json.dumps(row.spec, indent=2).encode())
    if isinstance(trouble.error, OperatorsFault):  # no run is free, but that is not all that it waits for
        tools.admission.decided.waits[row.uid] = Wait(reason=trouble.error.reason, message=launch_holds.told(trouble.error))
    return not trouble
