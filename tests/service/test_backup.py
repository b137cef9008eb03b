"""Back-up and restore, on both databases, with the commands of docs/operations.md: taken while jobs are at work and served on from."""

import asyncio
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlalchemy import text

from lorafleet.errors import NotFound, TokenExpired
from lorafleet.v1 import training_service_pb2 as pb
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import scope_of
from service.control.admission import Limits
from service.core.resource_names import parse_job
from service.core.wakeups import Bell
from service.db.database import Database
from service.db.engines import engine_of, parse_url, sqlite_url
from service.jobs.messages import job_event
from service.reconcile.orphans import end_orphans_once
from tests.postgres import SCRIPT
from tests.service.serving import REPOSITORY
from tests.service.world import World, progress, succeeded

HANDBOOK = (REPOSITORY / "docs/operations.md").read_text()


def after_restore() -> str:
    """The statement that the handbook orders after every restore."""
    [statement] = re.findall(r"^UPDATE service SET .*;$", HANDBOOK, flags=re.MULTILINE)
    return statement


def back_up(url: str, to: Path) -> None:
    parsed = parse_url(url)
    if parsed.drivername == "sqlite":
        with sqlite3.connect(str(parsed.database)) as connection:
            connection.execute("VACUUM INTO ?", (str(to),))
        return
    _postgres("pg_dump", url, "--format=custom", f"--file={to}")


def restore(url: str, backup: Path, folder: Path, new_database: Callable[[], str] | None) -> str:
    """Into another database; its URL."""
    if parse_url(url).drivername == "sqlite":
        (folder / "restored.db").write_bytes(backup.read_bytes())
        return sqlite_url(folder / "restored.db")
    assert new_database is not None
    restored = new_database()
    _postgres("pg_restore", restored, "--no-owner", "--exit-on-error", f"--dbname={parse_url(restored).database}", str(backup))
    return restored


def _postgres(program: str, url: str, *arguments: str) -> None:
    programs = Path(subprocess.run([SCRIPT], capture_output=True, text=True, check=True).stdout.strip())
    parsed = parse_url(url)
    where = {"PGHOST": str(parsed.host), "PGPORT": str(parsed.port), "PGUSER": str(parsed.username), "PGPASSWORD": str(parsed.password)}
    if program == "pg_dump":
        arguments = (*arguments, str(parsed.database))
    ran = subprocess.run([programs / program, *arguments], env={**os.environ, **where}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def new_database(request: pytest.FixtureRequest, database_url: str) -> Callable[[], str] | None:
    """Makes an empty PostgreSQL database."""
    if parse_url(database_url).drivername == "sqlite":
        return None
    server = request.getfixturevalue("postgres")
    return lambda: server.create(f"{parse_url(database_url).database}_restored")


async def first(db: Database, token: str, *, heartbeat: bool = False) -> pb.WatchTrainingJobsResponse:
    """What a watcher hears first, or its first heartbeat. Raises TokenExpired."""
    scope = scope_of(pb.WatchTrainingJobsRequest(parent="tenants/acme"))
    stopping = asyncio.Event()
    watch = Watch(db=db, scope=scope, feed=Feed(db, stopping))
    try:
        async with aclosing(watch.events(token)) as events:
            async for event in events:
                if not heartbeat or not event.HasField("training_job"):
                    return event
    finally:
        stopping.set()
    raise AssertionError("the watch ended")


async def resume_token(db: Database) -> str:
    """A watcher's newest."""
    return (await first(db, "", heartbeat=True)).resume_token


async def test_what_was_backed_up_while_jobs_ran_is_restored_and_served_on(
    world: World, database_url: str, tmp_path: Path, new_database: Callable[[], str] | None
):
    world.with_tools(limits=Limits(max_running_runs=2))
    lives, living_run = await world.running("lives")
    ends, ending_run = await world.running("ends")
    waits = await world.submit("waits")
    before = await resume_token(world.tools.db)

    copying = asyncio.create_task(asyncio.to_thread(back_up, database_url, tmp_path / "backup"))
    steps = await _keep_writing_while(copying, world, living_run)  # the copy is taken under load

    await world.submit("lost")  # accepted after the copy, and so lost with the disk
    await world.commit_artifact(ends)
    await world.report(ending_run, succeeded())
    world.backend.end(ending_run)
    world.clock.advance(5)
    await world.settle()
    late = world.backend.launches[-1]
    assert late not in {living_run, ending_run}, "a run that the copy does not know"
    after = await resume_token(world.tools.db)

    restored = Database(engine_of(restore(database_url, tmp_path / "backup", tmp_path, new_database)), world.clock, Bell(), job_event)
    async with restored.transaction() as tx:
        await tx.session.execute(text(after_restore()))
    again = await _served_from(restored, world, tmp_path / "elsewhere")

    assert [await again.state(name) for name in (lives, ends, waits)] == ["RUNNING", "RUNNING", "QUEUED"]
    assert 1 <= (await again.job(lives)).progress.step <= 1 + steps
    with pytest.raises(NotFound):
        await again.job(parse_job("tenants/acme/jobs/lost"))
    for token in (before, after):  # numbers of events are given anew: no token of before may go on
        with pytest.raises(TokenExpired):
            await first(restored, token)
    assert (await first(restored, "")).HasField("training_job")

    await end_orphans_once(again.tools)
    assert again.backend.stops == [late], "what was launched after the copy is ended, and what lives in the copy is left alone"
    again.clock.advance(60)
    await again.report(living_run, progress(90))
    await again.settle()
    assert (await again.job(lives)).progress.step == 90, "it goes on under the restored database"
    job = await again.job(ends)
    assert (pb.JobState.Name(job.state), len(job.attempts)) == ("JOB_STATE_SUCCEEDED", 1), "its artifact was found: it is not trained again"
    assert again.backend.launches[-1] != late, "the job that waited is launched anew"
    assert await again.state(waits) == "STARTING"
    await restored.close()


async def _served_from(db: Database, world: World, folder: Path) -> World:
    """Another server process, in front of the same backend."""
    await asyncio.to_thread(folder.mkdir)
    again = await World.create(db, world.backend, world.clock, folder)
    again.with_tools(limits=world.tools.limits)
    again.sequences = world.sequences
    return again


async def _keep_writing_while(copying: "asyncio.Task[None]", world: World, run: str) -> int:
    """Reports without a pause until the copy is there; how many."""
    steps = 0
    while not copying.done() or steps < 5:
        steps += 1
        await world.report(run, progress(1 + steps % 50))
        await asyncio.sleep(0)
    await copying
    return steps
