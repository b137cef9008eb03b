"""Writes to waiting jobs why they wait and at which position: in slices, so that reports get their turn, and only changes.

Ten thousand jobs that wait move up with every start. Their places are therefore written with two digits that count beyond
the first hundred (a start changes some two hundred rows, not ten thousand), a few seconds apart, and without an event but for
the next ten: readers of a job see its position, and watchers learn why it waits and when its turn is near.
"""

from collections.abc import Sequence
from functools import partial

from service.control.admission import Wait
from service.control.lifecycle import wait
from service.control.positions import rounded
from service.db import jobs, queue, row_faults
from service.reconcile.context import Tools

JOBS_AT_ONCE = 500  # jobs updated in one transaction
POSITIONS_EVERY_S = 5.0
NEXT = 10  # positions that watchers are notified of

_Change = tuple[str, Wait, int]


async def tell_some(tools: Tools) -> bool:
    """Updates some of the jobs whose announcement is outdated. True if there may be more."""
    memory = tools.admission
    waiting = memory.decided.waiting
    if not waiting:
        return False
    async with tools.db.snapshot() as tx:
        announced = await queue.announced(tx)
        now_s = tx.now.timestamp()
    places = {uid: rounded(place) for place, uid in enumerate(waiting, start=1)}
    known = [(uid, memory.decided.waits[uid], places[uid]) for uid in waiting if uid in announced]
    loud = [change for change in known if _is_loud(announced[change[0]], change)]
    quiet = {uid: place for uid, _, place in known if announced[uid].position != place}
    num_loud = len(loud)
    await _tell(tools, loud[:JOBS_AT_ONCE])
    if num_loud > JOBS_AT_ONCE:
        return True
    for uid, _, _ in loud:
        quiet.pop(uid, None)
    if not quiet or abs(now_s - memory.positions_at_s) < POSITIONS_EVERY_S:
        return False
    some = dict(list(quiet.items())[:JOBS_AT_ONCE])
    async with tools.db.transaction() as tx:
        await queue.put_positions(tx, some)
    if len(quiet) > len(some):
        return True
    memory.positions_at_s = now_s
    return False


def _is_loud(announced: queue.Announced, change: _Change) -> bool:
    _, why, place = change
    return (announced.reason, announced.message) != (why.reason, why.message) or (place <= NEXT and announced.position != place)


async def _tell(tools: Tools, changes: Sequence[_Change]) -> None:
    await row_faults.apart("admit", changes, partial(_tell_all, tools), lambda change: change[0])


async def _tell_all(tools: Tools, changes: Sequence[_Change]) -> None:
    async with tools.db.transaction() as tx:
        found = await queue.still_waiting(tx, [uid for uid, _, _ in changes])
        for uid, why, place in changes:
            if (row := found.get(uid)) is not None:
                jobs.save(tx, row, wait(jobs.value(row), why.reason, why.message))
                if row.queue_position != place:
                    row.queue_position = place
                    tx.show(row)
