"""Writes to people: any locale, colours only where they are wanted, and consoles that take text as text. Knows no jobs."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from lorafleet.control_characters import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160  # a pipe has no width
TIME_FORMAT = "%Y-%m-%d %H:%M:%S UTC"  # of tables; programs have fractions of seconds
ERRORS, _JSON_ERRORS = "lorafleet.plain", "lorafleet.json"  # names of what codecs do with letters that they do not have
_PLAIN = {"→": "->", "…": "~", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "•": "*", "·": ".", "━": "#", "╌": "-"}


def prepare() -> None:
    """Nothing written to stdout or stderr raises UnicodeEncodeError from now on, and colours stay off where they are not wanted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
    if not is_colourful():
        from typer import rich_utils  # of help and wrong usage

        rich_utils.COLOR_SYSTEM = None


def hang_up() -> None:
    """Nobody reads stdout any more, as behind `| head`: what is still to be written goes nowhere, and raises nothing."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_colourful() -> bool:
    """Whether colours are wanted, if it is a terminal (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(message: str, *, err: bool = False, colour: str | None = None) -> None:
    """One message, as text, with what it quotes made harmless."""
    import typer

    stream, text = sys.stderr if err else sys.stdout, visible(message)
    if colour and is_colourful() and stream.isatty():
        text = typer.style(text, fg=colour)
    _write(stream, text)


def say_json(value: Any, *, indent: int | None = 2) -> None:
    """A value for programs, in letters that stdout has."""
    text = visible_json(json.dumps(value, indent=indent, ensure_ascii=False))
    _write(sys.stdout, encodable(text, encoding_of(sys.stdout), _JSON_ERRORS))


def _write(stream: TextIO, text: str) -> None:
    """Not by typer.echo, which has an opinion of its own on encodings."""
    stream.write(f"{text}\n")
    stream.flush()


def encoding_of(stream: TextIO) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def has_all_letters(encoding: str) -> bool:
    return codecs.lookup(encoding).name.startswith("utf")


def encodable(text: str, encoding: str, errors: str = ERRORS) -> str:
    """The text in letters that an encoding has, so that its width is known before it is written."""
    return text.encode(encoding, errors).decode(encoding)


def stdout_console() -> Console:
    """For results."""
    return literal_console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH)


def stderr_console() -> Console:
    """For progress and remarks; only results go to stdout."""
    return literal_console(stderr=True)


def spinner_of(console: Console) -> str:
    """The name of a spinner that the console can write."""
    return "dots" if has_all_letters(console.encoding) else "line"


def literal_console(**options: Any) -> Console:
    """Text is text: no [markup], no :emoji:, no colours of numbers and paths; and nothing in it is obeyed by a terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class Literal(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=visible(segment.text))

    return Literal(markup=False, emoji=False, highlight=False, color_system="auto" if is_colourful() else None, **options)


def _written(error: UnicodeError, write: Callable[[str], str]) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(write, error.object[error.start : error.end])), error.end


def _plain(letter: str) -> str:
    return _PLAIN.get(letter) or letter.encode("unicode_escape").decode()


codecs.register_error(ERRORS, lambda error: _written(error, _plain))
codecs.register_error(_JSON_ERRORS, lambda error: _written(error, lambda letter: json.dumps(letter)[1:-1]))
