"""grpc.health.v1 follows readiness: at once into the drain, and back when a part comes back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lorafleet.errors import Unavailable
from service.api.servicers import health as healths
from service.api.servicers.health import Healths
from service.observability.health import Readiness

SERVICE = "lorafleet.v1.TrainingService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Part:
    is_away = False

    async def check(self) -> None:
        if self.is_away:
            raise Unavailable("away")


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def readiness(part: Part) -> Readiness:
    return Readiness({"part": part.check})


@pytest.fixture
async def watch(readiness: Readiness) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    kept = Healths(readiness, [SERVICE])
    kept.add_to(server)
    following = asyncio.create_task(kept.follow())
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
        yield watch
        watch.cancel()
    await server.stop(None)
    following.cancel()


async def test_it_is_not_serving_from_the_first_moment_of_the_drain(watch: Any, readiness: Readiness, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(healths, "ASK_EVERY_S", 3600)  # only the drain itself can wake it
    assert (await watch.read()).status == SERVING
    readiness.drain()
    assert (await watch.read()).status == NOT_SERVING


async def test_it_follows_a_part_that_goes_and_comes_back(watch: Any, part: Part, readiness: Readiness, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(healths, "ASK_EVERY_S", 0.01)
    assert (await watch.read()).status == SERVING
    part.is_away = True
    assert (await watch.read()).status == NOT_SERVING
    part.is_away = False
    assert (await watch.read()).status == SERVING
