"""Serves grpc.health.v1: SERVING exactly while this process is ready, NOT_SERVING from the first moment of its drain."""

from collections.abc import AsyncIterator, Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from lorafleet.errors import NotFound
from service.api.errors import Context
from service.core.wakeups import Bell, heard
from service.observability.health import Readiness

ASK_EVERY_S = 2.0


class Healths(health_pb2_grpc.HealthServicer):
    """The health service, kept in step with `readiness`. A watcher that does not read holds up nobody."""

    def __init__(self, readiness: Readiness, services: Sequence[str]) -> None:
        self._readiness = readiness
        self._names = frozenset((health.OVERALL_HEALTH, *services))
        self._status = health_pb2.HealthCheckResponse.SERVING
        self._changed = Bell()

    def add_to(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        if request.service not in self._names:
            raise NotFound("there is no such service here")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        last = None
        while True:
            changed = self._changed.listen()
            status = self._status if request.service in self._names else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            last = status
            await changed.wait()

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
        if status != self._status:
            self._status = status
            self._changed.ring()
