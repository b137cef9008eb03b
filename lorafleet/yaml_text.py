"""Reads YAML (and JSON, which is YAML too): plain values within limits that hold before anything is built. Knows no spec.

What a text says is checked on the parser's events, which neither recurse nor follow aliases: nested deeper than any spec, or with
aliases that would be a million times the file, it never reaches the code that builds values by recursion.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import yaml

MAX_DEPTH = 32
MAX_NODES = 4_000_000  # with aliases counted as often as they are used: 10,000 items of 200 fields
MAX_NUMBER = 400  # letters of a number
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_KINDS = {"int": "no whole number", "float": "no number", "bool": "neither true nor false", "timestamp": "no date", "binary": "no base64"}


def load(text: str) -> Any:
    """The value that a text stands for. Raises yaml.YAMLError and nothing else."""
    try:
        _check(text)
        return yaml.load(text, Loader=_Loader)
    except UnicodeEncodeError:  # half of a surrogate pair
        raise yaml.YAMLError(_unreadable(text)) from None
    except yaml.YAMLError:
        raise
    except Exception as error:
        raise yaml.YAMLError(f"a tag does not fit what it stands before ({type(error).__name__}: {error})") from None


def mistake(error: yaml.YAMLError, text: str = "") -> str:
    """PyYAML's complaint on one line, with its place."""
    if isinstance(error, yaml.reader.ReaderError):
        return _unreadable(text)
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    context = f", {error.context}" if error.context else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}"


_NOT_IN_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _unreadable(text: str) -> str:
    found = _NOT_IN_YAML.search(text)
    if found is None:
        return "a character that YAML does not allow"
    line, column = text.count("\n", 0, found.start()) + 1, found.start() - text.rfind("\n", 0, found.start())
    return f"line {line}, column {column}: the character U+{ord(found[0]):04X} is not allowed in YAML"


def _check(text: str) -> None:
    """Raises yaml.YAMLError for what is nested too deep, refers to itself, or is too large with its aliases."""
    known: dict[str, tuple[int, int]] = {}  # of each anchor: its nodes, and how deep they are
    inside: list[_Inside] = []
    size = 0
    for event in _events(text):
        if isinstance(event, yaml.CollectionEndEvent):
            ended = inside.pop()
            ended.tell(known, size)
            _deepen(inside, ended.depth + 1)
            continue
        if isinstance(event, yaml.CollectionStartEvent):
            size += 1
            inside.append(_Inside(event.anchor, size - 1))
        elif isinstance(event, yaml.NodeEvent):
            more, depth = _meant(event, known, inside)
            size += more
            _deepen(inside, depth)
        if len(inside) + (inside[-1].depth if inside else 0) > MAX_DEPTH:
            raise _at(event, f"is nested more than {MAX_DEPTH} deep")
        if size > MAX_NODES:
            raise _at(event, f"is more than {MAX_NODES:,} values, each alias counted as what it stands for")


class _Inside:
    """A list or mapping that is not over yet."""

    def __init__(self, anchor: str | None, begin: int) -> None:
        self.anchor, self.begin, self.depth = anchor, begin, 0

    def tell(self, known: dict[str, tuple[int, int]], size: int) -> None:
        if self.anchor:
            known[self.anchor] = (size - self.begin, self.depth + 1)


def _deepen(inside: list[_Inside], depth: int) -> None:
    if inside:
        inside[-1].depth = max(inside[-1].depth, depth)


def _meant(event: yaml.NodeEvent, known: dict[str, tuple[int, int]], inside: list[_Inside]) -> tuple[int, int]:
    """How many nodes a scalar or an alias stands for, and how deep they are."""
    if not isinstance(event, yaml.AliasEvent):
        if event.anchor:
            known[event.anchor] = (1, 0)
        return 1, 0
    if any(outer.anchor == event.anchor for outer in inside):
        raise _at(event, f"*{event.anchor} stands for something that it is part of")
    return known.get(str(event.anchor), (1, 0))


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=_Fast)


def _at(event: yaml.Event, problem: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=cast(Any, event.start_mark))


if TYPE_CHECKING:
    _Fast = yaml.SafeLoader
else:
    _Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a batch of thousands takes the other one seconds


class _Loader(_Fast):
    """YAML 1.1 reads 1e-4 as text and lets the second of two equal keys win; here it is a number, and a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value if node.id == "mapping" else ():  # a tag may call anything a mapping
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """PyYAML lets through what int(), date() and others raise."""
        if len(node.value) > MAX_NUMBER and node.tag in _NUMBERS:  # beyond 4,300 digits it cannot even be shown
            raise _misfit(node)
        try:
            return cast(Any, super()).construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception:
            raise _misfit(node) from None


def _misfit(node: yaml.Node) -> yaml.YAMLError:
    text, kind = str(node.value), str(node.tag).rpartition(":")[2]
    shown = f"{text[:40]!r}…" if len(text) > 40 else repr(text)
    problem = f"{shown} is {_KINDS.get(kind, f'no {kind}')}; put it in quotes if it is text"
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
cast(Any, _Loader).add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
