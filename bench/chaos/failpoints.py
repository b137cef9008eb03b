"""Places in a replica where the fleet's harness has it killed: before and after commits and side effects.

Armed by a file, so that a test harness in another process needs no way in: `POINT N` kills at the N-th passing of POINT.
Only the harness's own entry (bench.chaos.replica) puts these in, by patching; `lorafleet serve` knows nothing of them.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from service.db import events
from service.db.database import Database
from service.db.transaction import Transaction
from service.store.client import Store

POINTS = (
    "before_commit", "after_commit", "before_launch", "after_launch", "before_stop", "after_stop", "before_put", "after_put",
)  # fmt: skip


class Failpoints:
    """Watches one replica's file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passed = 0

    def reach(self, point: str) -> None:
        """The process dies here when the file says so."""
        try:
            wanted, number = self._path.read_text().split()
        except (FileNotFoundError, ValueError):
            return
        if wanted != point:
            return
        self._passed += 1
        if self._passed >= int(number):
            self._path.rename(self._path.with_suffix(".fired"))
            os.kill(os.getpid(), signal.SIGKILL)


def install(points: Failpoints) -> None:
    """Puts the points around every commit and every write to the store."""
    record, transaction, put = events.record, Database.transaction, Store.put

    async def recorded(tx: Transaction) -> None:
        await record(tx)
        if tx.changed:
            points.reach("before_commit")

    events.record = recorded
    Database.transaction = _followed(transaction, points)  # pyright: ignore[reportAttributeAccessIssue]

    async def written(self: Store, uri: str, data: bytes, *rest: Any, **named: Any) -> None:
        points.reach("before_put")
        await put(self, uri, data, *rest, **named)
        points.reach("after_put")

    Store.put = written


def _followed(
    transaction: Callable[..., AbstractAsyncContextManager[Transaction]], points: Failpoints
) -> Callable[..., AbstractAsyncContextManager[Transaction]]:
    @asynccontextmanager
    async def followed(self: Database, *rest: Any, **named: Any) -> AsyncIterator[Transaction]:
        async with transaction(self, *rest, **named) as tx:
            yield tx
        if tx.changed:
            points.reach("after_commit")

    return followed
