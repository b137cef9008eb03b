"""Live and ready: which part is named, what counts, and that a drain is heard at once."""

import pytest
from sqlalchemy import text

from lorafleet.errors import Unavailable
from service.backends.fake import FakeBackend
from service.db.database import Database
from service.observability.health import OK, STUCK_S, Pulse, Readiness, backend_check, database_check


class Ticks:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


async def away() -> None:
    raise Unavailable("the part is away; start it")


async def test_a_ready_process_says_so_part_by_part(db: Database, backend: FakeBackend):
    readiness = Readiness({"database": database_check(db), "backend": backend_check(backend)})
    health = await readiness.health()
    assert health.good
    assert health.parts == {"database": OK, "backend": OK, "drain": OK}


async def test_the_part_that_is_away_is_named():
    health = await Readiness({"backend": away}).health()
    assert not health.good
    assert health.parts["backend"] == "the part is away; start it"
    assert str(health) == "backend: the part is away; start it"


async def test_a_schema_that_is_too_old_is_not_ready(db: Database):
    async with db.transaction() as tx:
        await tx.session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    health = await Readiness({"database": database_check(db)}).health()
    assert "lorafleet db upgrade" in health.parts["database"]


async def test_a_schema_of_the_next_version_is_ready_so_that_an_upgrade_can_roll(db: Database):
    async with db.transaction() as tx:
        await tx.session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert (await Readiness({"database": database_check(db)}).health()).good


async def test_a_backend_that_never_answered_is_not_ready_and_one_that_goes_away_later_is_remarked_on(backend: FakeBackend):
    ticks = Ticks()
    backend.reachable = False
    readiness = Readiness({"backend": backend_check(backend)}, ticks)
    assert not (await readiness.health()).good
    backend.reachable, ticks.s = True, 10
    assert (await readiness.health()).good
    backend.reachable, ticks.s = False, 20
    health = await readiness.health()
    assert health.good
    assert health.notes == {"backend": "the fake backend is away"}


async def test_a_backend_that_is_starting_is_ready(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch):
    async def ping() -> None:
        raise Unavailable("the local Ray is starting", reason="RAY_STARTING")

    monkeypatch.setattr(backend, "ping", ping)
    health = await Readiness({"backend": backend_check(backend)}).health()
    assert health.good
    assert health.notes == {"backend": "the local Ray is starting"}


async def test_whoever_asks_often_asks_the_parts_once_a_second():
    ticks, asked = Ticks(), 0

    async def check() -> None:
        nonlocal asked
        asked += 1

    readiness = Readiness({"database": check}, ticks)
    for ticks.s in (0.0, 0.5, 0.9, 1.5):
        await readiness.health()
    assert asked == 2


def test_a_loop_that_does_not_come_round_is_not_live():
    ticks = Ticks()
    pulse = Pulse(ticks)
    pulse.begin("admit")
    ticks.s = STUCK_S - 1
    assert pulse.health().good
    ticks.s = STUCK_S + 1
    assert not pulse.health().good
    assert "restart this process" in pulse.health().parts["loop.admit"]


def test_a_loop_that_waits_long_on_purpose_is_live():
    ticks = Ticks()
    pulse = Pulse(ticks)
    pulse.begin("compact")
    pulse.wait("compact", 600)
    ticks.s = 500
    assert pulse.health().good
    assert pulse.late_s() == {"compact": 0.0}
    ticks.s = 700
    assert pulse.late_s() == {"compact": 100.0}
