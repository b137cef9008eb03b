"""Tells since when runs could have been heard without a break: what they did not say before is not their silence. Knows no run.

A run reports through an API server and the database. While either is away, or this process stands still, every healthy run looks
silent, and to end them all would make an outage of ours the end of everybody's work.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lorafleet.credentials import Credentials
from lorafleet.transport.channel import DIRECT, open_aio_channel
from service.core.clock import monotonic_s

BREAK_S = 15.0  # between two looks, which are some seconds apart else: the database was away, or this process stood still
ANSWER_WITHIN_S = 3.0

Probe = Callable[[], Awaitable[bool]]  # whether somebody takes reports

log = logging.getLogger(__name__)


@dataclass
class Hearing:
    """One replica's. `since` is None while nothing has broken it; by a clock that nobody sets (`Database.even_now`)."""

    since: datetime | None = None
    monotonic: Callable[[], float] = monotonic_s
    probe: Probe | None = None  # None: this very process takes reports
    _looked_s: float | None = None
    _was_answered: bool = False

    def look(self, now: datetime) -> None:
        """The database has answered, and it is looked for runs that are silent."""
        looked_s, self._looked_s = self._looked_s, self.monotonic()
        if looked_s is not None and self._looked_s - looked_s > BREAK_S:
            log.warning("runs could not be heard for %.0f s; they get their time anew", self._looked_s - looked_s)
            self.since = now

    async def ask(self, now: Callable[[], datetime]) -> None:
        """Asks whether somebody takes reports. One who never did is no measure: perhaps only runs may reach it."""
        if self.probe is None:
            return
        if await self.probe():
            self._was_answered = True
        elif self._was_answered:
            self.since = now()


def probe_of(address: str, tls_ca: Callable[[], str | None], *, tls: bool) -> Probe:
    """Asks the standard health service where runs report, with the authority that they trust at the time."""

    def channel() -> grpc.aio.Channel:
        return open_aio_channel(address, Credentials(tls=tls, tls_ca_pem=tls_ca() if tls else None), DIRECT)

    async def probe() -> bool:
        try:
            async with channel() as opened:
                request = health_pb2.HealthCheckRequest()
                answer = await health_pb2_grpc.HealthStub(opened).Check(request, timeout=ANSWER_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            log.debug("nobody takes reports: %s", error.details())
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    return probe
