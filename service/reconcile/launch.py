"""Launches admitted runs: writes what the driver needs to the store, then calls the backend."""

import json
import logging
from dataclasses import replace

from lorafleet import spec
from lorafleet.errors import LorafleetError
from lorafleet.layout import JobLayout
from lorafleet.run_manifest import RunManifest, Style
from service import log_context, telemetry
from service.backends.base import RunRequest
from service.control import lifecycle
from service.control.attempts import Gone
from service.control.priority import class_of
from service.control.runs import RunState
from service.db import events, hosts, jobs, locks, runs
from service.db.models import RunRow
from service.db.runs import Member
from service.db.transaction import Transaction
from service.reconcile.settle import settle
from service.reconcile.tools import ACTION_S, LOCK_S, Places, Tools

log = logging.getLogger(__name__)


async def launch_once(tools: Tools) -> bool:
    """Launch one admitted run. False when there is none that can be. Safe to kill between any two lines."""
    async with tools.db.transaction() as tx:
        pending = (RunRow.state == RunState.PENDING.value, RunRow.due_at <= tx.now, RunRow.stop_at.is_(None))
        run = await locks.take(tx, RunRow, *pending, first=RunRow.due_at, lock_for_s=LOCK_S)
        if run is None:
            return False
        run.num_launches += 1
        pack = await runs.members(tx, run.id)
        instance = (await events.service(tx)).instance
    log_context.bind(run=run.id, jobs=runs.job_names(pack))

    try:
        parent, *links = _trace_parents(pack) or ("",)
        with telemetry.span("launch run", parent=parent, links=tuple(links), run=run.id):
            async with locks.kept(tools.db, [run], LOCK_S, ACTION_S):
                handle = await _launch(tools, run, pack, instance)
    except LorafleetError as error:
        await _not_launched(tools, run, error)
        return False

    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, run)
        if held is None:  # another replica took over: it will find what we did
            return True
        if handle is None:
            await _offer(tx, held)
        else:
            await _launched(tx, held, handle)
        locks.release(held)
    log.info("%s %s for %s", "offered" if handle is None else "launched", run.id, ", ".join(member.job.name for member in pack))
    return True


async def _launched(tx: Transaction, run: RunRow, handle: str) -> None:
    runs.mark_launched(tx, run)  # unless the run's first report came before this
    run.handle = handle
    for member in await runs.lock_members(tx, run.id):
        jobs.save(tx, member.job, lifecycle.launched(jobs.value(member.job), tx.now))


async def _offer(tx: Transaction, run: RunRow) -> None:
    """Its warm workers learn of it in the response to each report, until the run itself reports."""
    run.state = RunState.OFFERED.value
    run.handle = next((idle.handle for idle in await hosts.before(tx, run)), None)
    tx.changed = True


async def _launch(tools: Tools, run: RunRow, pack: list[Member], instance: str) -> str | None:
    """The backend's handle; None for a run on warm workers, which learn of it with their next report."""
    places, store = tools.places.of(run, pack[0].job.tenant), tools.store.of(run.store_credentials)
    manifest = manifest_of(run, pack, places, tools.stop.warm_idle_s)
    for style in manifest.pack:
        await store.put(JobLayout(style.output_uri).spec, json.dumps(style.spec.model_dump(mode="json"), indent=2).encode())
    uri = places.manifest(run.id)
    await store.put(uri, manifest.model_dump_json(indent=2).encode())
    if run.host_id != run.id:
        return None
    request = request_of(run, pack, manifest.pack[0].spec.cluster, instance)
    token, store_env = tools.tokens.of(run.id, tools.db.clock.now()), tools.store.env_of(run.store_credentials)
    return await tools.backend.launch(replace(request, manifest_uri=uri, token=token, store_env=store_env))


def request_of(run: RunRow, pack: list[Member], cluster: spec.ClusterSpec, instance: str) -> RunRequest:
    """The launch request without its secrets. Pure. The styles of a pack ask for the same workers."""
    tenants = {member.job.tenant for member in pack}
    return RunRequest(
        run_id=run.id,
        instance=instance,
        manifest_uri="",
        token="",
        tenant=tenants.pop() if len(tenants) == 1 else "",
        cluster=cluster,
        priority_class=max(class_of(member.job.priority) for member in pack).name.lower(),
    )


def _trace_parents(pack: list[Member]) -> tuple[str, ...]:
    return tuple(parent for member in pack if (parent := member.job.trace_parent))


def manifest_of(run: RunRow, pack: list[Member], places: Places, warm_idle_s: float) -> RunManifest:
    """What the run's driver needs to know. Same rows, same manifest, but for the authority that it is to trust."""
    return RunManifest(
        run=run.id,
        attempt=max(member.place.attempt for member in pack),
        pack=tuple(Style(job=member.job.name, spec=spec.parse(member.job.spec), output_uri=member.job.output_uri) for member in pack),
        cache_uri=places.cache_uri,
        report_address=places.report_address,
        report_tls=places.report_tls,
        report_tls_ca=places.report_tls_ca(),
        in_company=run.in_company,
        warm_idle_s=warm_idle_s,
        otlp_endpoint=places.otlp_endpoint,
        trace_parents=_trace_parents(pack) if places.otlp_endpoint else (),
        storage_dir=places.ray_storage(run.id),
    )


async def _not_launched(tools: Tools, run: RunRow, error: LorafleetError) -> None:
    """Retries soon, after other runs, if that may help; otherwise this attempt has failed."""
    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, run)
        if held is None:
            return
        if not error.retryable:
            await settle(tx, held, Gone(reason=error.reason, message=error.message), {}, tools.retry)
            return
        held.due_at = tx.now
        for member in await runs.lock_members(tx, held.id):
            jobs.save(tx, member.job, replace(jobs.value(member.job), message=f"not launched yet: {error.message}"))
        locks.release(held)
