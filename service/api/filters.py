"""A small subset of AIP-160: comparisons joined by AND. Text in, values out; the database is not its business."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from lorafleet.errors import InvalidInput
from service.control.lifecycle import JobState
from service.names import invalid

MAX_LENGTH = 2000
MAX_COMPARISONS = 20
_TOKEN = re.compile(r'\s*(?:(?P<op><=|>=|!=|=|<|>)|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>[^\s"=<>!()]+))')
_LABEL = re.compile(r"labels\.([a-z][a-z0-9_.-]*)")
_ORDERS = {"", "create_time desc", "create_time", "create_time asc"}
_HINT = 'write state = RUNNING AND labels.team = "red" AND create_time > "2026-01-31T12:00:00Z"'


@dataclass(frozen=True)
class Comparison:
    """`label` is set when `field` is "labels"."""

    field: str
    op: str
    value: str | datetime
    label: str = ""


def parse_filter(text: str) -> list[Comparison]:
    """The comparisons that all must hold. Raises InvalidInput."""
    if len(text) > MAX_LENGTH:
        raise _bad(f"is longer than {MAX_LENGTH} characters")
    if "\x00" in text:
        raise _bad("has a NUL character in it")
    tokens = _tokens(text)
    comparisons: list[Comparison] = []
    while tokens:
        if comparisons and tokens.pop(0) != ("word", "AND"):
            raise _bad(f"has something other than AND between two comparisons; {_HINT}")
        comparisons.append(_comparison(tokens[:3]))
        del tokens[:3]
    if len(comparisons) > MAX_COMPARISONS:
        raise _bad(f"has more than {MAX_COMPARISONS} comparisons")
    return comparisons


def parse_order(text: str) -> bool:
    """Whether newest come first. Raises InvalidInput."""
    order = " ".join(text.split())
    if order not in _ORDERS:
        raise invalid("order_by", f'{text!r} is no order; write "create_time" or "create_time desc"', reason="BAD_ORDER")
    return order in {"", "create_time desc"}


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _bad(f"is not understood at character {position + 1}; {_HINT}")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


def _comparison(tokens: list[tuple[str, str]]) -> Comparison:
    if [kind for kind, _ in tokens] not in (["word", "op", "word"], ["word", "op", "quoted"]):
        raise _bad(f"is not a comparison at {' '.join(text for _, text in tokens) or 'its end'!r}; {_HINT}")
    (_, field), (_, op), (kind, value) = tokens
    return _typed(field, op, re.sub(r"\\(.)", r"\1", value[1:-1]) if kind == "quoted" else value)


def _typed(field: str, op: str, value: str) -> Comparison:
    if field == "create_time":
        return Comparison("create_time", op, _time(value))
    if op not in {"=", "!="}:
        raise _bad(f"compares {field} with {op}; only = and != are known for it")
    if field == "state":
        return Comparison("state", op, _state(value))
    if (label := _LABEL.fullmatch(field)) is not None:
        return Comparison("labels", op, value, label[1])
    raise _bad(f"names {field!r}; known are state, create_time and labels.KEY")


def _state(value: str) -> str:
    name = value.removeprefix("JOB_STATE_")
    if name not in JobState.__members__:
        raise _bad(f"names the state {value!r}; known are {', '.join(JobState)}")
    return name


def _time(value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise _bad(f"has {value!r}, which is no time; write RFC 3339, as 2026-01-31T12:00:00Z") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _bad(problem: str) -> InvalidInput:
    return invalid("filter", problem, reason="BAD_FILTER")
