"""Rings the bell when another replica has changed something: PostgreSQL's LISTEN and NOTIFY. Without it polls find the same, later."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection, Error

from service.core.concurrency import beside
from service.db.database import CHANNEL, Database, read_notice
from service.db.engines import listening_arguments

RETRY_S = 1.0
ASK_EVERY_S = 10.0  # whether the connection still is one

log = logging.getLogger(__name__)


@asynccontextmanager
async def listening(db: Database, url: str) -> AsyncGenerator[None]:
    """In the block, `db.bell` rings for the commits of others too. An away database is looked for again and again."""
    async with beside(_listen(db, url)):
        yield


async def _listen(db: Database, url: str) -> None:
    while True:
        try:
            async with await AsyncConnection.connect(**listening_arguments(url), autocommit=True) as connection:
                await connection.execute(f"LISTEN {CHANNEL}".encode())
                db.bell.ring()  # for what was missed
                await _ring(db, connection)
        except (Error, OSError) as error:
            log.debug("changes of other replicas are polled for: %s", error)
        await asyncio.sleep(RETRY_S)


async def _ring(db: Database, connection: AsyncConnection) -> None:
    while True:
        async for notice in connection.notifies(timeout=ASK_EVERY_S):
            sender, has_work = read_notice(notice.payload)
            if sender != db.sender:  # our own commits have rung already
                db.bell.ring(work=has_work)
        await connection.execute(b"SELECT 1")
