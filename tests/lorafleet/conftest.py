"""A fake control plane, and a clock that only moves when somebody sleeps."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lorafleet.transport import async_io, sync_io
from lorafleet.transport.retry import Patience
from tests.lorafleet.both_clients import KINDS, opened
from tests.lorafleet.fake_server import FakeServer


@dataclass
class FakeTime:
    """Stands still, but for sleeps."""

    now_s: float = 0.0
    slept_s: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def patience(self, total_s: float = 30.0) -> Patience:
        return Patience(total_s=total_s, now=self.now, draw=lambda low, high: high)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    time = FakeTime()
    monkeypatch.setattr(sync_io, "sleep", time.sleep)
    monkeypatch.setattr(async_io, "sleep", time.sleep_async)
    return time


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture(params=KINDS)
def client_kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return request.param


@pytest.fixture
async def client(client_kind: str, server: FakeServer, time: FakeTime) -> AsyncIterator[Any]:
    """Each of the two clients in turn, both to be awaited."""
    async with opened(client_kind, server.address, tenant="acme", patience=time.patience()) as client:
        yield client
