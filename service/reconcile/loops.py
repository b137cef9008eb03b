"""Starts all loops of one server."""

import asyncio
from datetime import timedelta
from functools import partial

from service.db import adapter_events, audit, events, requests
from service.reconcile.admit import admit_once
from service.reconcile.context import Tools
from service.reconcile.copy_logs import copy_log_once
from service.reconcile.imports import import_once
from service.reconcile.launch import launch_once
from service.reconcile.loop import Loop, run
from service.reconcile.observe import observe_once
from service.reconcile.orphans import end_orphans_once
from service.reconcile.purge import purge_once
from service.reconcile.retention import retain_once
from service.reconcile.standby import stand_by_once
from service.reconcile.stop import expire_once, notice_silence_once, stop_once
from service.reconcile.versions import versions_once
from service.reconcile.webhooks import deliver_once

KEEP_AUDIT_DAYS = 400  # more than the year that auditors ask for
KEEP_EVENTS_S = 24 * 3600.0  # a watch may be away this long and still resume


async def run_all(tools: Tools, stopping: asyncio.Event) -> None:
    """Runs every loop until `stopping`."""
    all_loops = (
        Loop(name="admit", step=partial(admit_once, tools)),
        Loop(name="launch", step=partial(launch_once, tools)),
        Loop(name="observe", step=partial(observe_once, tools)),
        Loop(name="stop", step=partial(stop_once, tools)),
        Loop(name="silence", step=partial(notice_silence_once, tools), every_s=2.0, hears=False),
        Loop(name="deadlines", step=partial(expire_once, tools), every_s=2.0, hears=False),
        Loop(name="logs", step=partial(copy_log_once, tools)),
        Loop(name="orphans", step=partial(end_orphans_once, tools), every_s=15.0, hears=False),
        Loop(name="standby", step=partial(stand_by_once, tools), every_s=2.0, hears=False),
        Loop(name="versions", step=partial(versions_once, tools)),
        Loop(name="imports", step=partial(import_once, tools)),
        Loop(name="retention", step=partial(retain_once, tools), every_s=2.0),
        Loop(name="purge", step=partial(purge_once, tools), every_s=60.0, hears=False),
        Loop(name="webhooks", step=partial(deliver_once, tools)),
        Loop(name="compact", step=partial(compact_once, tools), every_s=600.0, hears=False),
    )
    await asyncio.gather(*(run(loop, tools.db.bell, stopping, tools.pulse) for loop in all_loops))


async def compact_once(tools: Tools) -> bool:
    """Forget events that no watch may go on from any more, and the ids of requests that nobody repeats any more;
    and what the audit log has kept long enough."""
    async with tools.db.transaction() as tx:
        num_gone = await events.compact(tx, tx.now - timedelta(seconds=KEEP_EVENTS_S))
        await adapter_events.forget(tx, tx.now - timedelta(seconds=KEEP_EVENTS_S))
        await requests.forget(tx, tx.now - timedelta(seconds=requests.KEEP_S))
        await audit.forget(tx, tx.now - timedelta(days=KEEP_AUDIT_DAYS))
    return num_gone == events.COMPACTED_AT_ONCE
