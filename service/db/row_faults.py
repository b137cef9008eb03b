"""Tells a row's own errors from those of the loop: loops that all tenants share go on past a row's, count it and say so.

The one place that tells a row's errors from the loop's: a database that is away, cannot be written or gave way
to another is nobody's row, and so is cancellation. Knows neither rows nor loops.
"""

import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from lorafleet.contract import store_faults
from lorafleet.contract.store_faults import FaultKind
from lorafleet.errors import LorafleetError, OperatorsFault
from service.control.lifecycle import ROW_ERROR
from service.core import telemetry
from service.db.errors import Contended, Unreachable, Unwritable
from service.db.types import storable

OF_THE_LOOP = (Contended, Unreachable, Unwritable)
MAX_MESSAGE = 2000  # characters

Thing = TypeVar("Thing")

log = logging.getLogger(__name__)


@dataclass
class RowFault:
    """What a block raised that was about one row; nothing when it went through."""

    error: Exception | None = None

    def __bool__(self) -> bool:
        return self.error is not None

    @property
    def message(self) -> str:
        return told(self.error) if self.error else ""


@contextmanager
def own(loop: str, row: str, passes: tuple[type[Exception], ...] = (*OF_THE_LOOP, SQLAlchemyError)) -> Generator[RowFault]:
    """The block does something for one row. Its exception ends the block, is counted and logged, and lies in what is given.

    `passes`: what is not the row's own. In the middle of a transaction that is whatever the database says: it has ended for all.
    """
    trouble = RowFault()
    try:
        yield trouble
    except passes:
        raise
    except Exception as error:
        trouble.error = error
        note(loop, row, error)


async def apart(
    loop: str,
    things: Sequence[Thing],
    act: Callable[[Sequence[Thing]], Awaitable[None]],
    name: Callable[[Thing], str],
    mark: Callable[[Thing, Exception], Awaitable[None]] | None = None,
) -> None:
    """`act` for all of them in a transaction of its own; should that raise, for half of them, and so on: one that raises fails alone.

    Costs nothing while all is well. `mark` tells the row, in another transaction, what it failed of.
    """
    if not things:
        return
    try:
        await act(things)
    except OF_THE_LOOP:
        raise
    except Exception as error:
        if len(things) > 1:
            half = len(things) // 2
            await apart(loop, things[:half], act, name, mark)
            await apart(loop, things[half:], act, name, mark)
            return
        note(loop, name(things[0]), error)
        if mark is not None:
            with own(loop, name(things[0])):
                await mark(things[0], error)


def culprits(things: Sequence[Thing], decide: Callable[[Sequence[Thing]], object]) -> list[tuple[Thing, Exception]]:
    """Those that `decide`, a function without effects, raises for by themselves, found by halves."""
    try:
        decide(things)
    except Exception as error:
        if len(things) == 1:
            return [(things[0], error)]
        half = len(things) // 2
        return culprits(things[:half], decide) + culprits(things[half:], decide)
    return []


def note(loop: str, row: str, error: Exception) -> None:
    """Counts it and logs it, with a traceback unless it is one of ours, which says all there is to say."""
    telemetry.count("lorafleet_row_errors_total", loop=loop, reason=reason_of(error))
    is_ours = isinstance(error, LorafleetError)
    level = logging.WARNING if is_ours else logging.ERROR
    log.log(level, "loop %s goes on past %s: %s", loop, row, told(error), exc_info=None if is_ours else error)


def reason_of(error: Exception) -> str:
    """Stable, and one of few: for a metric."""
    known = _known(error)
    return type(error).__name__ if known is None else known.reason


def ours(error: Exception) -> LorafleetError:
    """The error as one that a job can end of, or wait with."""
    return _known(error) or LorafleetError(told(error), reason=ROW_ERROR)


def told(error: Exception) -> str:
    """The error as the row's tenant may read it: the text of an exception that nobody has foreseen may hold anything."""
    if (known := _known(error)) is not None:
        return storable(known.message)[:MAX_MESSAGE]
    return f"an error of the service ({type(error).__name__}), whose operators find it in the log"


def _known(error: Exception) -> LorafleetError | None:
    """One of ours. A full disk is one too, whoever met it: it is its operators' to mend, and no row's."""
    if isinstance(error, OSError) and (fault := store_faults.of_errno(error.errno)).kind is FaultKind.OPERATOR:
        return OperatorsFault(fault.what, reason=fault.reason)
    return error if isinstance(error, LorafleetError) else None
