"""The bench of the control plane: what it counts is what it says."""

from pathlib import Path

from bench import service, service_rows
from service.core.clock import SystemClock
from service.db import migrate
from service.db.engines import sqlite_url


async def test_a_tick_and_a_page_find_the_rows_that_were_made(tmp_path: Path):
    service.make_inputs(tmp_path)
    url = sqlite_url(tmp_path / "db")
    async with service.ticking(url, tmp_path, 20, num_live=2) as tick:
        assert await tick() > 0
        async with service.database(url, SystemClock()) as db:
            assert len(await service_rows.add_live_jobs(db, str(tmp_path), "more", 3)) == 3


def test_raw_commits_are_counted(tmp_path: Path):
    url = sqlite_url(tmp_path / "db")
    migrate.upgrade(url)
    assert service.raw_commits_per_s(url, 0.05) > 0
