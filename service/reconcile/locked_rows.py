"""Acts on a row that a loop has taken: should that raise, the row is put off and its jobs hear why.

Without this a row that always fails would be taken first again and again, with the loop's own pauses growing meanwhile.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from lorafleet.errors import LorafleetError, OperatorsFault
from service.control import lifecycle
from service.db import jobs, locks, row_faults, runs
from service.db.locks import Row
from service.db.models import RunLogRow, RunRow
from service.db.registry_models import AdapterVersionRow
from service.db.webhook_models import WebhookRow
from service.reconcile.context import Tools

AGAIN_S = 30.0


@asynccontextmanager
async def own(tools: Tools, loop: str, row: Row, *, due: str = "due_at") -> AsyncGenerator[None]:
    """The block works on the row, and writes only while it is held. `due`: the column that says when it is looked at next."""
    with row_faults.own(loop, _name(row), passes=row_faults.OF_THE_LOOP) as trouble:
        yield
    if trouble.error:
        with row_faults.own(loop, _name(row)):
            await put_off(tools, row, row_faults.ours(trouble.error), due)


async def put_off(tools: Tools, row: Row, error: LorafleetError, due: str = "due_at") -> None:
    """Frees the row for a later time, if it is still held."""
    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, row)
        if held is None:
            return
        setattr(held, due, tx.now + timedelta(seconds=AGAIN_S))
        locks.release(held)
        if isinstance(held, RunRow):
            for member in await runs.lock_members(tx, held.id):
                jobs.save(tx, member.job, lifecycle.troubled(jobs.value(member.job), *_why(error)))


def _why(error: LorafleetError) -> tuple[str, str]:
    """The reason and the message of the jobs that wait for the run."""
    if isinstance(error, OperatorsFault):
        return error.reason, f"its run waits for the operators of the service, and is tried again: {error.message}"
    return lifecycle.ROW_ERROR, f"its run is held up, and is tried again: {error.message}"


def _name(row: RunRow | RunLogRow | AdapterVersionRow | WebhookRow) -> str:
    match row:
        case RunRow():
            return row.id
        case RunLogRow():
            return row.run_id
        case AdapterVersionRow() | WebhookRow():
            return row.name
