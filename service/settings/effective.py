"""Prints the options that count, each with where it comes from: as a file that `lorafleet serve --config` reads. Shows no password."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from lorafleet.redacting import without_passwords
from service.settings.given import GivenOption, GivenOptions


def lines(values: Mapping[str, Any], given: GivenOptions) -> Iterator[str]:
    """One line for each option, by its name without its dashes."""
    texts = {name: _yaml(name, value) for name, value in values.items()}
    width = min(max(map(len, texts.values()), default=0), 60)
    for name, text in texts.items():
        flag = f"--{name}"
        yield f"{text:<{width}}  # {given.options.get(flag, GivenOption(flag=flag)).origin}"


def _yaml(name: str, value: Any) -> str:
    import yaml

    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=float("inf"), allow_unicode=True)
    return f"{name}: {text.removesuffix('...' + chr(10)).strip()}"


def _plain(value: Any) -> Any:
    match value:
        case list() | tuple():
            return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        case StrEnum() | Path() | str():
            return without_passwords(str(value))
        case _:
            return value
