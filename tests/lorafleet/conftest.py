"""A fake control plane, and a clock that only moves when somebody sleeps."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from lorafleet.client import Client
from lorafleet.retry import Patience
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

    def patience(self, total_s: float = 30.0) -> Patience:
        return Patience(total_s=total_s, now=self.now, sleep=self.sleep, draw=lambda low, high: high)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def client(server: FakeServer, time: FakeTime) -> Iterator[Client]:
    with Client(server.address, tenant="acme", patience=time.patience()) as client:
        yield client
