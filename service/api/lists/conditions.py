"""Compiles a filter to SQL. Knows no table: what a comparison is there, its caller says."""

from collections.abc import Callable
from typing import assert_never

from sqlalchemy import ColumnElement, and_, or_

from service.api.lists.filters import OPPOSITE, AllOf, AnyOf, Comparison, Condition, Not

Compared = Callable[[Comparison, str], ColumnElement[bool]]  # of a comparison, with this operator in place of its own


def compiled(condition: Condition, compared: Compared, *, holds: bool = True) -> ColumnElement[bool]:
    """That the condition holds, or that it does not; values become bound parameters. A NOT is carried down to the comparisons: in SQL
    the NOT of a comparison with a label that is not there would be neither true nor false."""
    match condition:
        case Not(part):
            return compiled(part, compared, holds=not holds)
        case AllOf(parts) | AnyOf(parts):
            compiled_parts = [compiled(part, compared, holds=holds) for part in parts]
            return and_(*compiled_parts) if isinstance(condition, AllOf) is holds else or_(*compiled_parts)
        case Comparison():
            return compared(condition, condition.op if holds else OPPOSITE[condition.op])
        case _:
            assert_never(condition)
