"""Launches admitted runs: writes what the driver needs to the store, then calls the backend."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lorafleet import spec, work
from lorafleet.contract import store_faults
from lorafleet.contract.layout import JobLayout
from lorafleet.contract.run_manifest import RunManifest, Standby, Style, Task
from lorafleet.errors import LorafleetError, OperatorsFault
from lorafleet.work import TRAINING
from service.backends.base import RunRequest
from service.control import lifecycle
from service.control.attempts import Gone
from service.control.priority import class_of
from service.control.runs import RunState
from service.core import log_context, telemetry
from service.db import events, hosts, jobs, locks, row_faults, runs
from service.db.models import RunRow
from service.db.row_faults import OF_THE_LOOP
from service.db.runs import PackMember
from service.db.transaction import Transaction
from service.reconcile import locked_rows
from service.reconcile.context import ACTION_S, LOCK_S, Tools
from service.runs.locations import RunLocations
from service.runs.settlement import leave_run, settle, settle_host
from service.store.client import Store, StoreError
from service.store.uri_prefixes import lies_in

NOTHING_LEFT = "NOTHING_LEFT"

log = logging.getLogger(__name__)


class Overtaken(Exception):
    """Another replica has taken the run."""


class NothingLeft(Exception):
    """No job of the run can be launched."""


async def launch_once(tools: Tools) -> bool:
    """Launch one admitted run. False when there is none that can be. Safe to kill between any two lines."""
    async with tools.db.transaction() as tx:
        pending = (RunRow.state == RunState.PENDING.value, RunRow.due_at <= tx.now, RunRow.stop_at.is_(None))
        run = await locks.take(tx, RunRow, *pending, first=RunRow.due_at, lock_for_s=LOCK_S)
        if run is None:
            return False
        run.num_launches += 1
        pack = [member for member in await runs.members(tx, run.id) if member.place.outcome is None]
        instance = (await events.service(tx)).instance
    log_context.bind(run=run.id, jobs=runs.job_names(pack))

    async with locked_rows.own(tools, "launch", run):
        return await _launch_taken(tools, run, pack, instance)
    return False


async def _launch_taken(tools: Tools, run: RunRow, pack: list[PackMember], instance: str) -> bool:
    if not pack and run.standby is None:  # killed after the last was set aside
        await _nothing_left(tools, run)
        return True
    try:
        parent, *links = _trace_parents(pack) or ("",)
        with telemetry.span("launch run", parent=parent, links=tuple(links), run=run.id):
            async with locks.kept(tools.db, [run], LOCK_S, ACTION_S):
                handle = await _launch(tools, run, pack, instance)
    except Overtaken:
        return True
    except NothingLeft:
        await _nothing_left(tools, run)
        return True
    except OF_THE_LOOP:
        raise
    except Exception as error:
        await _not_launched(tools, run, error if isinstance(error, LorafleetError) else _unforeseen(run, error))
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
    whom = ", ".join(member.job.name for member in pack) or "whoever comes first"
    log.info("%s %s for %s", "offered" if handle is None else "launched", run.id, whom)
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


async def _launch(tools: Tools, run: RunRow, pack: list[PackMember], instance: str) -> str | None:
    """The backend's handle; None for a run on warm workers, which learn of it with their next report."""
    if (standby := runs.standby_of(run)) is not None:
        return await _launch_standby(tools, run, standby, instance)
    locations, store = tools.locations.of(run, pack[0].job.tenant), tools.store.of(run.store_credentials)
    if unreadable := _unreadable(pack):
        pack = await _set_aside(tools, run, unreadable)
    manifest = await _manifest(tools, store, run, pack, locations)
    await _put_manifest(store, locations, manifest)  # first: what stands in the way of this is no job's fault
    tools.launch_holds.clear(run.store_credentials)
    if refused := await _put_specs(store, locations, manifest):
        pack = await _set_aside(tools, run, refused)
        manifest = await _manifest(tools, store, run, pack, locations)
        await _put_manifest(store, locations, manifest)
    if run.host_id != run.id:
        return None
    request = request_of(run, pack, work.of(manifest.kind).parse(pack[0].job.spec).cluster, instance)
    token, store_env = tools.tokens.of(run.id, tools.db.clock.now()), tools.store.env_of(run.store_credentials)
    uri = locations.manifest(run.id)
    request = replace(request, manifest_uri=uri, bucket_regions=await store.regions([uri]))
    return await tools.backend.launch(replace(request, token=token, store_env=store_env))


def _unreadable(pack: Sequence[PackMember]) -> dict[str, LorafleetError]:
    """Members whose spec is none any more, by the job's name: they keep no other from its run."""
    found: dict[str, LorafleetError] = {}
    for member in pack:
        with row_faults.own("launch", member.job.name) as trouble:
            work.of(member.job.kind).parse(member.job.spec)
        if trouble.error:
            found[member.job.name] = row_faults.ours(trouble.error)
    return found


def _unforeseen(run: RunRow, error: Exception) -> LorafleetError:
    """Costs its jobs an attempt: what is wrong with them ends them so, and what is not goes by."""
    row_faults.note("launch", run.id, error)
    return row_faults.ours(error)


async def _manifest(tools: Tools, store: Store, run: RunRow, pack: list[PackMember], locations: RunLocations) -> RunManifest:
    manifest = manifest_of(run, pack, locations, tools.stop.warm_idle_s)
    used = [uri for style in manifest.pack for uri in uris_of(style)] + _uris_of_tasks(manifest)
    regions = await store.regions([manifest.cache_uri, *used])
    return manifest.model_copy(update={"bucket_regions": regions})


def uris_of(style: Style) -> tuple[str, ...]:
    """All that a style reads and writes."""
    base = style.spec.base_model
    start = style.spec.adapter.start
    started = () if start is None or start.uri is None else (start.uri,)
    merged, data = style.spec.output.merged_with, (uri for _, uri in style.spec.dataset.uris)
    return base.uri, *base.part_uris.values(), *data, *started, *merged, style.output_uri


def _uris_of_tasks(manifest: RunManifest) -> list[str]:
    parse = work.of(manifest.kind).parse
    return [uri for task in manifest.tasks for uri in (*parse(task.spec).uris, task.output_uri)]


async def _put_manifest(store: Store, locations: RunLocations, manifest: RunManifest) -> None:
    try:
        await store.put(locations.manifest(manifest.run), manifest.model_dump_json(indent=2).encode())
    except StoreError as error:  # in a folder of the service's own: no job has named it
        raise OperatorsFault(error.message, reason=store_faults.OWN_PLACE) from None


async def _put_specs(store: Store, locations: RunLocations, manifest: RunManifest) -> dict[str, LorafleetError]:
    """Leaves each spec beside the job's work. What stands in the way of that, by the job's name, is that job's alone."""
    refused: dict[str, LorafleetError] = {}
    styles = [(style.job, style.output_uri, style.spec.model_dump(mode="json")) for style in manifest.pack]
    for name, root, plain in (*styles, *((task.name, task.output_uri, task.spec) for task in manifest.tasks)):
        try:
            await store.within(root).put(JobLayout(root).spec, json.dumps(plain, indent=2).encode())
        except StoreError as error:
            refused[name] = OperatorsFault(error.message, reason=store_faults.OWN_PLACE) if _is_own(locations, root) else error
        except OperatorsFault as error:
            refused[name] = error
    return refused


def _is_own(locations: RunLocations, uri: str) -> bool:
    return lies_in(uri, locations.artifacts_uri)


async def _set_aside(tools: Tools, run: RunRow, refused: Mapping[str, LorafleetError]) -> list[PackMember]:
    """Those members end here, or wait for the operators; the others, which are returned, go on. Raises NothingLeft, and Overtaken."""
    async with tools.db.transaction() as tx:
        if await locks.still_held(tx, run) is None:
            raise Overtaken
        pack = await runs.lock_members(tx, run.id)
        for member in pack:
            if (error := refused.get(member.job.name)) is not None and member.place.outcome is None:
                leave_run(tx, member, error, tools.retry)
    left = [member for member in pack if member.place.outcome is None]
    if not left:
        raise NothingLeft
    return left


async def _launch_standby(tools: Tools, run: RunRow, standby: Standby, instance: str) -> str:
    """With the service's own access to the store and no tenant's, as its workers may be given to any."""
    locations, uri = tools.locations, tools.locations.manifest(run.id)
    manifest = await _manifest(tools, tools.store, run, [], locations)
    await _put_manifest(tools.store, locations, manifest)
    token = tools.tokens.of(run.id, tools.db.clock.now())
    request = RunRequest(run_id=run.id, instance=instance, manifest_uri=uri, token=token, cluster=standby.cluster, priority_class="low")
    return await tools.backend.launch(replace(request, bucket_regions=await tools.store.regions([uri])))


def request_of(run: RunRow, pack: list[PackMember], cluster: spec.ClusterSpec, instance: str) -> RunRequest:
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


def _trace_parents(pack: list[PackMember]) -> tuple[str, ...]:
    return tuple(parent for member in pack if (parent := member.job.trace_parent))


def manifest_of(run: RunRow, pack: list[PackMember], locations: RunLocations, warm_idle_s: float) -> RunManifest:
    """What the run's driver needs to know. Same rows, same manifest, but for the authority that it is to trust."""
    return RunManifest(
        run=run.id,
        attempt=max((member.place.attempt for member in pack), default=1),
        **_work_of(pack),
        cache_uri=locations.cache_uri,
        report_address=locations.report_address,
        report_tls=locations.report_tls,
        report_tls_ca=locations.report_tls_ca(),
        in_company=run.in_company,
        warm_idle_s=warm_idle_s,
        otlp_endpoint=locations.otlp_endpoint,
        trace_parents=_trace_parents(pack) if locations.otlp_endpoint else (),
        standby=runs.standby_of(run),
        storage_dir=locations.ray_storage(run.id),
    )


def _work_of(pack: Sequence[PackMember]) -> dict[str, Any]:
    """The jobs as their run's manifest has them: all are of one kind."""
    kind = pack[0].job.kind if pack else TRAINING
    if kind != TRAINING:
        tasks = tuple(Task(name=member.job.name, spec=member.job.spec, output_uri=member.job.output_uri) for member in pack)
        return {"pack": (), "kind": kind, "tasks": tasks}
    return {"pack": tuple(Style.of(member.job.name, spec.parse(member.job.spec), member.job.output_uri) for member in pack)}


async def _not_launched(tools: Tools, run: RunRow, error: LorafleetError) -> None:
    """Retries soon, after other runs, if that may help; otherwise this attempt is over."""
    async with tools.db.transaction() as tx:
        await hosts.lock(tx, run.host_id)
        held = await locks.still_held(tx, run)
        if held is None:
            return
        if isinstance(error, OperatorsFault):
            tools.launch_holds.note(held.store_credentials, error, tools.db.even_now())  # not held up by a clock that is set back
            await settle_host(tx, held, Gone(reason=error.reason, message=error.message), {}, tools.retry)
            return
        if not error.retryable:
            await settle_host(tx, held, Gone(reason=error.reason, message=error.message), {}, tools.retry)
            return
        held.due_at = tx.now
        for member in await runs.lock_members(tx, held.id):
            jobs.save(tx, member.job, replace(jobs.value(member.job), message=f"not launched yet: {error.message}"))
        locks.release(held)


async def _nothing_left(tools: Tools, run: RunRow) -> None:
    async with tools.db.transaction() as tx:
        if (held := await locks.still_held(tx, run)) is not None:
            await settle(tx, held, Gone(reason=NOTHING_LEFT, message="none of its jobs could be launched"), {}, tools.retry)
