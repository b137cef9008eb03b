"""Reads specs on disk: YAML files, and single fields set over them. Every mistake is a violation, like those of the spec itself."""

import os
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import yaml

from lorafleet import spec, yaml_text
from lorafleet.errors import InvalidInput, InvalidSpec, LorafleetError, Violation

Parsed = TypeVar("Parsed")

MAX_BYTES = 2**20  # of a spec: the largest that is good has a tenth of it
_SHELLS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # of <(command), which someone writes to


def load(path: Path, overrides: Sequence[str] = ()) -> spec.Spec:
    """The spec in a YAML file, with `training.max_steps=200` and the like set over it. Raises InvalidSpec, and what `read` raises."""
    return load_as(spec.parse, path, overrides)


def load_as(parse: Callable[[Mapping[str, Any]], Parsed], path: Path, overrides: Sequence[str] = ()) -> Parsed:
    """The same of other specs, by what parses them."""
    with reading(path):
        return _parsed(parse, read(path), overrides)


def _parsed(parse: Callable[[Mapping[str, Any]], Parsed], fields: Mapping[str, Any], overrides: Sequence[str]) -> Parsed:
    wrong = list[Violation]()
    for override in overrides:
        try:
            fields = set_field(fields, override)
        except InvalidSpec as error:
            wrong += error.violations
    try:
        parsed = parse(fields)
    except InvalidSpec as error:
        raise InvalidSpec([*wrong, *error.violations]) from None
    if wrong:
        raise InvalidSpec(wrong)
    return parsed


def read(path: Path, *, most_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InvalidSpec when it is not YAML or not a mapping, and InvalidInput when it cannot be read."""
    text = read_text(path, most_bytes)
    try:
        fields = yaml_text.load(text)
    except yaml.YAMLError as error:
        raise _invalid(str(path), f"is not YAML: {yaml_text.mistake(error, text)}") from None
    if not isinstance(fields, dict):
        raise _invalid(str(path), "holds no mapping; a spec starts with base_model: and dataset:")
    return cast(dict[str, Any], fields)


def read_text(path: Path, most_bytes: int) -> str:
    """The text in a plain file, or in a pipe that the shell has opened. Raises InvalidInput; nothing is read of anything else."""
    try:
        with open_plain(path) as file:
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise _unreadable(path, f"is larger than {most_bytes / 2**20:.0f} MiB")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _unreadable(path, f"is not UTF-8 text: line {line}, byte 0x{error.object[error.start]:02x}") from None
    except OSError as error:
        raise _unreadable(path, "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error)) from None


def open_plain(path: Path) -> BinaryIO:
    """Without waiting for a writer, as a named pipe would. Raises InvalidInput, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or (stat.S_ISFIFO(mode) and str(path).startswith(_SHELLS)):
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise _unreadable(path, "is a folder" if stat.S_ISDIR(mode) else "is not a plain file")


def _unreadable(path: Path, message: str) -> InvalidInput:
    violation = Violation(field=str(path), message=message)
    return InvalidInput(str(violation), violations=[violation], reason="UNREADABLE_FILE")


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Whatever else is wrong with a file is a mistake in it, too, and named as one."""
    try:
        yield
    except (LorafleetError, MemoryError):
        raise
    except Exception as error:
        raise _invalid(str(path), f"cannot be read as a spec ({type(error).__name__}: {str(error)[:200]})") from None


def set_field(fields: Mapping[str, Any], override: str) -> dict[str, Any]:
    """`fields` with `path=value` set; the value is YAML, so that 8 is a number and [a, b] a list. Raises InvalidSpec."""
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")) or path.count(".") > yaml_text.MAX_DEPTH:
        raise _invalid(override[:200], "is not path=value, such as training.max_steps=200")
    try:
        value = yaml_text.load(text)
    except yaml.YAMLError as error:
        raise _invalid(path, f"value is not YAML: {yaml_text.mistake(error, text)}") from None
    return with_value(fields, path.split("."), value, override)


def with_value(fields: Mapping[str, Any], path: Sequence[str], value: Any, override: str) -> dict[str, Any]:
    """`fields` with the value at a path; `override` is what a complaint is about. Raises InvalidSpec."""
    first, *rest = path
    if not rest:
        return {**fields, first: value}
    inner = fields.get(first) or dict[str, Any]()
    if not isinstance(inner, dict):
        raise _invalid(override, f"{first} is not a mapping, so nothing can be set in it")
    return {**fields, first: with_value(cast(dict[str, Any], inner), rest, value, override)}


def _invalid(field: str, message: str) -> InvalidSpec:
    return InvalidSpec([Violation(field=field, message=message)])
