"""Keeps workers warm: from the end of one run on a host to the beginning of the next, as the host's reports tell it.

A run whose jobs have all ended goes IDLE with the first report that says so. Its workers then ask, twice a second, what
to go on with: the answer names the run that admission has given them, again and again until that run reports itself,
or tells them to end. All of it is in the database, so that a lost answer or a restart of the service loses nothing.
Workers that stand by are in a run without jobs: it is IDLE once they are up, and `reconcile.standby` says how long they wait.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from lorafleet.v1 import report_service_pb2 as pb
from service.control.attempts import Gone, RetryPolicy
from service.control.lifecycle import Outcome
from service.control.runs import RunState, StopPolicy
from service.db import hosts, runs
from service.db.models import RunRow
from service.db.runs import PackMember
from service.db.transaction import Transaction
from service.runs.locations import RunLocations
from service.runs.settlement import MISSED, settle_jobs
from service.runs.tokens import RunTokens

NEXT_REPORT_S = 0.5
ENDED = "ENDED"  # why a run is stopped whose jobs have all ended
_STOPS_OF_JOBS = {ENDED, "CANCELLED"}  # hard stops that are pointless once every job has ended

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Warmth:
    """The protocol with warm workers."""

    tokens: RunTokens
    locations: RunLocations
    stop: StopPolicy
    retry: RetryPolicy

    async def rest(self, tx: Transaction, run: RunRow, pack: Sequence[PackMember]) -> None:
        """The run reports that it has nothing left to train. Its jobs that need another attempt are queued at once.

        Ends that its driver has not reported yet are waited for.
        """
        if run.state != RunState.LAUNCHED.value or not all(_has_ended(member) or member.place.joining for member in pack):
            return
        for member in pack:
            if member.place.joining:
                member.place.outcome, member.place.reason, member.place.message = Outcome.STOPPED.value, MISSED.reason, MISSED.message
        await settle_jobs(tx, run, Gone(reason=ENDED, message="every style of the run has ended"), {}, self.retry)
        run.state = RunState.IDLE.value
        run.gone_time = tx.now
        if run.stop_reason in _STOPS_OF_JOBS:
            run.stop_at, run.stop_reason, run.stop_message = None, "", ""
        tx.changed = True
        log.info("%s; its workers wait, warm", f"{run.id} has ended" if run.standby is None else f"{run.id} stands by")

    async def _manifest(self, tx: Transaction, run: RunRow) -> str:
        return self.locations.of(run, await runs.tenant(tx, run.id) if run.store_credentials else "").manifest(run.id)

    async def answer(self, tx: Transaction, run: RunRow, acked: int) -> pb.ReportResponse:
        """The directive for idle workers."""
        coming = await hosts.coming(tx, run)
        idle_since = run.gone_time or tx.now
        waits_for_ever = run.standby is not None
        if (
            not waits_for_ever
            and coming is None
            and run.stop_at is None
            and tx.now - idle_since >= timedelta(seconds=self.stop.warm_idle_s)
        ):
            release(tx, run, self.stop.linger_s, f"nothing came for {self.stop.warm_idle_s:.0f} s")
        response = pb.ReportResponse(acked_sequence=acked, next_report_s=NEXT_REPORT_S)
        if coming is not None and coming.state == RunState.OFFERED.value:
            uri = await self._manifest(tx, coming)
            response.next_run.CopyFrom(pb.NextRun(run=coming.id, manifest_uri=uri, token=self.tokens.of(coming.id, tx.now)))
        elif run.stop_at is not None:
            response.directives.append(pb.Directive(action=pb.DIRECTIVE_ACTION_RELEASE))
        return response


async def begin(tx: Transaction, run: RunRow) -> None:
    """The workers of a host have begun this run: earlier runs on that host are over."""
    for before in await hosts.before(tx, run):
        run.handle = run.handle or before.handle  # it may have been offered before they were launched
        before.state = RunState.GONE.value
        before.stop_at = None
        tx.changed = True


def release(tx: Transaction, run: RunRow, linger_s: float, message: str) -> None:
    """Asks the warm workers of an idle run to end; if they do not, they are stopped hard. Such as stand by give way at once:
    there is nothing that they could lose."""
    log.info("the warm workers of %s are released: %s", run.host_id, message)
    after_s = linger_s if run.standby is None else 0.0
    runs.stop_from(run, tx.now + timedelta(seconds=after_s), hosts.RELEASED, message)
    tx.changed = True


def _has_ended(member: PackMember) -> bool:
    return member.place.outcome is not None or member.job.end_time is not None
