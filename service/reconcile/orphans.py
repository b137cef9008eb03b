"""Ends orphans: runs alive on the backend that the database has written off or never knew.

A replica that was paused in the middle of a launch is how one comes about: its lock expires, another replica finds nothing
to observe and settles the run, and then the first wakes up and launches it. Such a run is refused its first report, and is
ended here in case it never makes one.
"""

import logging

from service.db import events, hosts, row_faults
from service.reconcile.context import Tools

log = logging.getLogger(__name__)


async def end_orphans_once(tools: Tools) -> bool:
    """Stops every orphan of this instance; always returns False. Needs no lock token: stops may be repeated, and gone is final.

    The backend is asked first and the database second, for a run is in the database before it is launched. Raises
    Unavailable when the backend cannot tell.
    """
    async with tools.db.snapshot() as tx:
        instance = (await events.service(tx)).instance
    living = await tools.backend.runs(instance)
    async with tools.db.snapshot() as tx:
        known = await hosts.alive(tx, [run.run_id for run in living])
    for run in living:
        if run.run_id not in known:
            log.warning("stopping %s: it lives, and the database knows no such live run", run.run_id)
            with row_faults.own("orphans", run.run_id):
                await tools.backend.stop(run)
    return False
