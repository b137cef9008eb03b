"""Opens the database for `lorafleet serve`, frees rows that nobody holds any more, and hands its own over at the end."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from lorafleet.errors import FailedPrecondition, Unavailable
from service.core.clock import FollowingClock, SystemClock
from service.core.wakeups import Bell
from service.db import locks, migrate
from service.db.database import Database
from service.db.engines import engine_of, shown, sqlite_url
from service.jobs.messages import job_event
from service.settings.serve_settings import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def database(settings: Settings) -> AsyncGenerator[Database]:
    """The database, its schema up to date. At the end what this process still holds is free for the others at once.

    Raises Unavailable (DATABASE_UNREACHABLE) and FailedPrecondition (SCHEMA_TOO_NEW).
    """
    opened = _shared(settings.database_url) if settings.database_url else _own(settings)
    async with opened as db:
        try:
            yield db
        finally:
            await _hand_over(db)


@asynccontextmanager
async def _own(settings: Settings) -> AsyncGenerator[Database]:
    """SQLite in the state directory, which this process alone holds: whoever took rows there is dead."""
    url = sqlite_url(settings.database_path)
    _migrate(url)
    db = Database(engine_of(url), SystemClock(), Bell(), job_event)
    try:
        async with db.transaction() as tx:
            await locks.release_all(tx)
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def _shared(url: str) -> AsyncGenerator[Database]:
    """PostgreSQL, shared with other replicas: what they took is theirs until it expires."""
    from service.db.listening import listening

    await asyncio.to_thread(_migrate, url)
    log.info("the database is %s", shown(url))
    db = Database(engine_of(url), FollowingClock(), Bell(), job_event)
    try:
        async with listening(db, url):
            yield db
    finally:
        await db.close()


def _migrate(url: str) -> None:
    try:
        found = migrate.upgrade(url)
        wrong = [] if found in migrate.REVISIONS else migrate.misfits(url)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise Unavailable(f"the database {shown(url)} does not answer: {reason}", reason="DATABASE_UNREACHABLE") from error
    if wrong:
        message = f"the schema of {shown(url)} is {found}, and this lorafleet knows it up to {migrate.HEAD}: start a newer one"
        raise FailedPrecondition(f"{message} ({', '.join(wrong)})", reason="SCHEMA_TOO_NEW")
    if found not in migrate.REVISIONS:  # an upgrade that failed, or its rollback: migrations keep what the version before uses
        log.warning(
            "the schema of %s is %s, newer than this version's %s; all that this version uses is there", shown(url), found, migrate.HEAD
        )


async def _hand_over(db: Database) -> None:
    """Frees what steps that were cut off still held; the others would wait until it expires."""
    try:
        async with db.transaction() as tx:
            await locks.release_held_by(tx, db.sender)
    except Unavailable as error:
        log.warning("what this replica held is free once it expires: %s", error)
