"""Parses filters, a small subset of AIP-160: comparisons with AND, OR, NOT and parentheses. Text in, values out; the database is not its
business."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from lorafleet.errors import InvalidInput
from service.control.lifecycle import JobState
from service.core.resource_names import invalid

MAX_LENGTH = 2000
MAX_COMPARISONS = 20
MAX_DEPTH = 20  # of parentheses and NOTs in one another
_TOKEN = re.compile(r'\s*(?:(?P<op><=|>=|!=|=|<|>)|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<sign>[()])|(?P<word>[^\s"=<>!()]+))')
OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_LABEL = re.compile(r"labels\.([a-z][a-z0-9_.-]*)")
_FIGURE = re.compile(r"quality\.([a-z][a-z0-9_]{0,62})")
_ORDERS = {"", "create_time desc", "create_time", "create_time asc"}
_HINT = 'write (state = RUNNING OR state = QUEUED) AND NOT labels.team = "red" AND create_time > "2026-01-31T12:00:00Z"'


class Token(NamedTuple):
    """`kind` is word, op, quoted or sign."""

    kind: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """`label` is set when `field` is "labels", or "quality"."""

    field: str
    op: str
    value: str | datetime | float
    label: str = ""


@dataclass(frozen=True)
class AllOf:
    """Every one of them holds."""

    parts: "tuple[Condition, ...]"


@dataclass(frozen=True)
class AnyOf:
    """One of them holds, or several."""

    parts: "tuple[Condition, ...]"


@dataclass(frozen=True)
class Not:
    """It does not hold."""

    part: "Condition"


Condition = Comparison | AllOf | AnyOf | Not


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What a list can be filtered by, beside create_time and labels.KEY."""

    texts: Mapping[str, Callable[[str], str]]  # compared by = and != alone; each with what its values are checked by
    numbers: Sequence[str] = ()
    figures: bool = False  # quality.FIGURE

    @property
    def known(self) -> str:
        """For people."""
        return ", ".join([*self.texts, *self.numbers, *(["quality.FIGURE"] if self.figures else []), "create_time and labels.KEY"])


def parse_filter(text: str, fields: "Fields | None" = None) -> Condition | None:
    """The condition that must hold; None for an empty filter. `fields`: those of jobs where nothing else is said. Raises InvalidInput.

    As in AIP-160 OR binds closer than AND: `a AND b OR c` is `a AND (b OR c)`. `-` is another way to write NOT.
    """
    if len(text) > MAX_LENGTH:
        raise _bad(f"is longer than {MAX_LENGTH} characters")
    if "\x00" in text:
        raise _bad("has a NUL character in it")
    tokens = _tokens(text)
    return _FilterParser(tokens, fields or JOBS).whole() if tokens else None


class _FilterParser:
    """Reads tokens from left to right, one function for each level of the grammar."""

    def __init__(self, tokens: list[Token], fields: Fields) -> None:
        self._fields = fields
        self._tokens = tokens[::-1]  # the next one last
        self._num_comparisons = 0

    def whole(self) -> Condition:
        condition = self._all_of(depth=0)
        if self._tokens:
            text = self._tokens[-1].text
            raise _bad(f"has {text!r} where AND, OR or the end should be; {_HINT}" if text != ")" else "has a ')' too many")
        return condition

    def _all_of(self, depth: int) -> Condition:
        parts = [self._any_of(depth)]
        while self._takes("AND"):
            parts.append(self._any_of(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _any_of(self, depth: int) -> Condition:
        parts = [self._term(depth)]
        while self._takes("OR"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _term(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise _bad(f"has more than {MAX_DEPTH} parentheses and NOTs in one another")
        if self._takes("NOT") or self._takes("-"):
            return Not(self._term(depth + 1))
        if not self._takes("("):
            return self._comparison()
        condition = self._all_of(depth + 1)
        if not self._takes(")"):
            raise _bad("has a '(' without its ')'")
        return condition

    def _takes(self, text: str) -> bool:
        """Goes on behind this word or sign, if it is the next."""
        if not self._tokens or self._tokens[-1].kind == "quoted" or self._tokens[-1].text != text:
            return False
        self._tokens.pop()
        return True

    def _comparison(self) -> Comparison:
        tokens = self._tokens[:-4:-1]
        if [token.kind for token in tokens] not in (["word", "op", "word"], ["word", "op", "quoted"]):
            raise _bad(f"is not a comparison at {' '.join(token.text for token in tokens) or 'its end'!r}; {_HINT}")
        del self._tokens[-3:]
        self._num_comparisons += 1
        if self._num_comparisons > MAX_COMPARISONS:
            raise _bad(f"has more than {MAX_COMPARISONS} comparisons")
        field, op, value = tokens
        text = re.sub(r"\\(.)", r"\1", value.text[1:-1]) if value.kind == "quoted" else value.text
        return _typed(field.text, op.text, text, self._fields)


def parse_order(text: str) -> bool:
    """Whether newest come first. Raises InvalidInput."""
    order = " ".join(text.split())
    if order not in _ORDERS:
        raise invalid("order_by", f'{text!r} is not an order; write "create_time" or "create_time desc"', reason="BAD_ORDER")
    return order in {"", "create_time desc"}


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _bad(f"is not understood at character {position + 1}; {_HINT}")
        tokens += _split(Token(match.lastgroup, match[match.lastgroup]), is_value=bool(tokens) and tokens[-1].kind == "op")
        position = match.end()
    return tokens


def _split(token: Token, *, is_value: bool) -> list[Token]:
    """A `-` before a field is a sign of its own; in a value it is a letter like others."""
    if token.kind != "word" or is_value:
        return [token]
    word = token.text.lstrip("-")
    signs = [Token("sign", "-")] * (len(token.text) - len(word))
    return [*signs, Token("word", word)] if word else signs


def _typed(field: str, op: str, value: str, fields: Fields) -> Comparison:
    if field == "create_time":
        return Comparison("create_time", op, _time(value))
    if field in fields.numbers:
        return Comparison(field, op, _number(value))
    if fields.figures and (figure := _FIGURE.fullmatch(field)) is not None:
        return Comparison("quality", op, _number(value), figure[1])
    if op not in {"=", "!="}:
        raise _bad(f"compares {field} with {op}; only = and != are known for it")
    if field in fields.texts:
        return Comparison(field, op, fields.texts[field](value))
    if (label := _LABEL.fullmatch(field)) is not None:
        return Comparison("labels", op, value, label[1])
    raise _bad(f"names {field!r}; known are {fields.known}")


def _state(value: str) -> str:
    name = value.removeprefix("JOB_STATE_")
    if name not in JobState.__members__:
        raise _bad(f"names the state {value!r}; known are {', '.join(JobState)}")
    return name


JOBS = Fields(texts={"state": _state})


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _bad(f"has {value!r}, which is not a number")
    return number


def _time(value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise _bad(f"has {value!r}, which is not a time; write RFC 3339, as 2026-01-31T12:00:00Z") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _bad(problem: str) -> InvalidInput:
    return invalid("filter", problem, reason="BAD_FILTER")
