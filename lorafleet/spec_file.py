"""Specs on disk: YAML files, and single fields set over them. Every mistake is a violation, like those of the spec itself."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from lorafleet import spec
from lorafleet.errors import InvalidInput, InvalidSpec, Violation


def load(path: Path, overrides: Sequence[str] = ()) -> spec.Spec:
    """The spec in a YAML file, with `training.max_steps=200` and the like set over it. Raises InvalidSpec, and what `read` raises."""
    fields, wrong = read(path), list[Violation]()
    for override in overrides:
        try:
            fields = set_field(fields, override)
        except InvalidSpec as error:
            wrong += error.violations
    try:
        parsed = spec.parse(fields)
    except InvalidSpec as error:
        raise InvalidSpec([*wrong, *error.violations]) from None
    if wrong:
        raise InvalidSpec(wrong)
    return parsed


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InvalidSpec when it is not YAML or not a mapping, and InvalidInput when it cannot be read."""
    try:
        fields = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    except yaml.YAMLError as error:
        raise _invalid(str(path), f"is not YAML: {yaml_mistake(error)}") from None
    if not isinstance(fields, dict):
        raise _invalid(str(path), "holds no mapping; a spec starts with base_model: and dataset:")
    return cast(dict[str, Any], fields)


def unreadable(path: Path, error: OSError | UnicodeDecodeError) -> InvalidInput:
    """What to tell of a file that cannot be read."""
    message = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or "is not UTF-8 text"
    violation = Violation(field=str(path), message=message)
    return InvalidInput(str(violation), violations=[violation], reason="UNREADABLE_FILE")


def yaml_mistake(error: yaml.YAMLError) -> str:
    """PyYAML's complaint on one line, with its place."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    context = f", {error.context}" if error.context else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}"


def set_field(fields: Mapping[str, Any], override: str) -> dict[str, Any]:
    """`fields` with `path=value` set; the value is YAML, so that 8 is a number and [a, b] a list. Raises InvalidSpec."""
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise _invalid(override, "is not path=value, such as training.max_steps=200")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise _invalid(path, f"value is not YAML: {yaml_mistake(error)}") from None
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


def load_yaml(text: str) -> Any:
    """The value that a text stands for. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)


if TYPE_CHECKING:
    _Fast = yaml.SafeLoader
else:
    _Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a batch of thousands takes the other one seconds


class _Loader(_Fast):
    """YAML 1.1 reads 1e-4 as text and lets the second of two equal keys win; here it is a number, and a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in reversed(node.value):
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
cast(Any, _Loader).add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def _invalid(field: str, message: str) -> InvalidSpec:
    return InvalidSpec([Violation(field=field, message=message)])
