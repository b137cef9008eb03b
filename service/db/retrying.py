"""Does a whole call again when a database transaction in it gave way to another. The one place where that is done."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lorafleet.backoff import doubled_s, spread_s
from service.core import telemetry
from service.db.errors import Contended, Unreachable, may_be_committed

TRIES = 5
WAIT_S = 0.02  # before the second try; twice as long before each further one, less a random part of it
MAX_WAIT_S = 1.0

Result = TypeVar("Result")
log = logging.getLogger(__name__)


async def again(call: Callable[[], Awaitable[Result]]) -> Result:
    """`call` from its beginning until it goes through, some times at most.

    It must be good for being called again: all that it writes is written by its transactions. One that may have been
    committed before the connection was lost is not repeated here: the caller knows whether that is harmless.
    Raises Contended and Unreachable after the last try.
    """
    for tries in range(1, TRIES):
        try:
            return await call()
        except (Contended, Unreachable) as error:
            if may_be_committed(error):
                raise
            telemetry.count("lorafleet_db_retries_total", reason=error.reason)
            log.debug("try %d gave way: %s", tries, error)
        await asyncio.sleep(spread_s(doubled_s(WAIT_S, MAX_WAIT_S, tries)))
    return await call()
