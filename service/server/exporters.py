"""Shows what `lorafleet serve` does, as its settings say: the side port with health and metrics, and traces."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from service.core import telemetry
from service.observability.probes import health_pages, probing
from service.reconcile.context import Tools
from service.settings.serve_settings import Settings

SLEEP_S = 0.5  # of which the event loop's lag is told

log = logging.getLogger(__name__)


@asynccontextmanager
async def observing(settings: Settings, tools: Tools) -> AsyncGenerator[None]:
    """Shows what happens while entered. Raises Unavailable (PORT_TAKEN)."""
    async with AsyncExitStack() as stack:
        if settings.otlp_endpoint:
            await stack.enter_async_context(_traced(settings.otlp_endpoint))
        if settings.metrics_listen is not None:
            await stack.enter_async_context(_counted(settings.metrics_listen, tools))
        yield


@asynccontextmanager
async def _traced(endpoint: str) -> AsyncGenerator[None]:
    from service.observability.tracing import OtlpTracer

    tracer = OtlpTracer.to(endpoint)
    telemetry.trace_with(tracer)
    try:
        yield
    finally:
        telemetry.trace_with(None)
        await asyncio.to_thread(tracer.close)


@asynccontextmanager
async def _counted(listen: tuple[str, int], tools: Tools) -> AsyncGenerator[None]:
    from service.observability.metrics import MetricsCollector, metrics_page

    metrics = MetricsCollector()
    pages = {**health_pages(tools.pulse, tools.readiness), "/metrics": metrics_page(metrics, tools.db, tools.pulse, tools.readiness)}
    async with probing(listen, pages) as address:
        log.info("health and metrics on http://%s", address)
        telemetry.listen(metrics)
        lag = asyncio.create_task(_tell_lag())
        try:
            yield
        finally:
            lag.cancel()
            telemetry.listen(None)


async def _tell_lag() -> None:
    while True:
        slept_from = time.monotonic()
        await asyncio.sleep(SLEEP_S)
        telemetry.measure("lorafleet_event_loop_lag_seconds", max(0.0, time.monotonic() - slept_from - SLEEP_S))
