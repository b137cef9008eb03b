"""Reads the file of options of `lorafleet serve --config`: YAML, whose keys are the options' names without their dashes."""

import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

from lorafleet.errors import InvalidInput

MAX_BYTES = 2**20


def read(path: Path) -> dict[str, Any]:
    """What the file says, by key; null is not there. Raises InvalidInput for what is no mapping in YAML."""
    import yaml  # with the readers of specs: only a server with a file waits for them

    from lorafleet import spec_file, yaml_text

    text = spec_file.read_text(path, MAX_BYTES)
    try:
        found = yaml_text.load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path}: is not YAML: {yaml_text.mistake(error, text)}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput(f"{path}: holds no mapping; write one option a line, as max-running-runs: 4")
    return {str(key): value for key, value in cast(dict[Any, Any], found).items() if value is not None}


def known(found: Mapping[str, Any], keys: Collection[str], tell: Callable[[str, str], None]) -> dict[str, Any]:
    """Those that are options; of each other one is told which is meant."""
    for key in found:
        if key not in keys:
            tell(key, f"unknown option{close(key, keys)}")
    return {key: value for key, value in found.items() if key in keys}


def close(name: str, names: Collection[str]) -> str:
    """The nearest name, to be put behind a message."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"; close: {found[0]}" if found else ""


def misfit(value: Any, *, is_switch: bool, is_repeatable: bool) -> str:
    """Why a value of the file is none of such an option; empty where the option's own check decides."""
    if isinstance(value, list):
        if not is_repeatable:
            return "takes one value, not a list"
        return "" if all(isinstance(each, str) for each in cast(list[Any], value)) else "takes a list of texts; put each in quotes"
    if isinstance(value, bool):
        return "" if is_switch else f"{str(value).lower()} is not what it takes; put it in quotes if it is text"
    return "" if isinstance(value, str | int | float) else "takes text or a number; put it in quotes if it is text"


def misread(value: Any, taken: Any) -> str:
    """Why a value is not what was written: YAML reads 0123 as 83, and 12:30 as 750."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "is a number for YAML; put it in quotes, since it is text" if is_number and isinstance(taken, str | Path) else ""
