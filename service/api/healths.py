"""grpc.health.v1: SERVING exactly while this process is ready, NOT_SERVING from the first moment of its drain."""

from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service.bell import heard
from service.health import Readiness

ASK_EVERY_S = 2.0


class Healths:
    """The health service, kept in step with `readiness`."""

    def __init__(self, readiness: Readiness, services: Sequence[str]) -> None:
        self._readiness = readiness
        self._names = (health.OVERALL_HEALTH, *services)
        self._servicer: Any = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue] (its stubs know no aio)

    def add_to(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def follow(self) -> None:
        """Tells every change of readiness until cancelled."""
        while True:
            await self.tell()
            if self._readiness.draining.is_set():
                return  # for good
            await heard(self._readiness.draining, ASK_EVERY_S)

    async def tell(self) -> None:
        """Says how it is now."""
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if (await self._readiness.health()).good else response.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)
