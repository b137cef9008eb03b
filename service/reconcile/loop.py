"""Runs a step again and again: at once while it finds work, else after the next ring of the bell or a poll.

Polls find what only time brings about; a loop that finds nothing polls ever more rarely, so that an idle server is idle.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lorafleet.backoff import doubled_s, spread_s
from lorafleet.errors import LorafleetError, Unavailable
from service.core import log_context, telemetry
from service.core.wakeups import Bell, heard
from service.observability.health import Pulse

MAX_BACKOFF_S = 30.0
MAX_QUIET_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One loop. `step` returns whether it found work; it is safe to kill between any two of its lines."""

    name: str
    step: Callable[[], Awaitable[bool]]
    every_s: float = 1.0
    hears: bool = True  # False: no commit makes it look sooner, only time brings it work


async def run(loop: Loop, bell: Bell, stopping: asyncio.Event, pulse: Pulse) -> None:
    """Runs until `stopping`; a step under way is finished. A failing step is retried with growing delays."""
    failures = quiet = 0
    while not stopping.is_set():
        ring = bell.listen_for_work()
        pulse.begin(loop.name)
        with log_context.scope(loop=loop.name):
            try:
                worked = await _step(loop)
                failures = 0
            except Exception as error:
                worked = False
                failures += 1
                _log(loop, error)
        wait_s = _wait_s(loop, failures, quiet)
        pulse.wait(loop.name, 0 if worked else wait_s)
        if worked or await heard(ring if loop.hears else stopping, wait_s):
            quiet = 0
        else:
            quiet += 1


async def _step(loop: Loop) -> bool:
    began = time.monotonic()
    try:
        with telemetry.span(f"loop {loop.name}") as span:
            worked = await loop.step()
            if not worked:
                span.drop()
            return worked
    finally:
        telemetry.measure("lorafleet_loop_step_seconds", time.monotonic() - began, loop=loop.name)


def _log(loop: Loop, error: Exception) -> None:
    reason = error.reason if isinstance(error, LorafleetError) else type(error).__name__
    telemetry.count("lorafleet_loop_errors_total", loop=loop.name, reason=reason)
    if isinstance(error, Unavailable):
        log.warning("loop %s: %s", loop.name, error)
    else:
        log.exception("loop %s failed and will try again", loop.name)


def _wait_s(loop: Loop, failures: int, quiet: int) -> float:
    if failures:
        return spread_s(doubled_s(loop.every_s, MAX_BACKOFF_S, failures))
    return max(loop.every_s, doubled_s(loop.every_s, MAX_QUIET_S, quiet))
