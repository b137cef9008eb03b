"""docs/spec.md and docs/spec.schema.json are true: every field of the spec with its type, its default and what it means.

`python -m tests.lorafleet.test_spec_document` (make schema) writes the tables.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorafleet.spec import json_schema

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs/spec.md"
_TABLES = re.compile(r"(?<=<!-- fields -->\n).*?(?=<!-- /fields -->)", re.DOTALL)
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}


def tables() -> str:
    """A table for each section of the spec, in the order of the code."""
    schema = json_schema()
    return "\n" + "".join(_section(name, part, schema) for name, part in schema["properties"].items())


def _section(name: str, part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" not in part:  # a field of the spec itself
        return f"## {name}\n\n{part['description']} {_type(part).capitalize()}.\n\n"
    section = schema["$defs"][part["$ref"].rpartition("/")[2]]
    rows = list(_rows(name, section, schema))
    return "\n".join([f"## {name}", "", section["description"], "", "| field | type | default | |", "|---|---|---|---|", *rows, "", ""])


def _rows(name: str, section: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Of the fields of a part, and of the parts within it."""
    needed = section.get("required", ())
    for field, fields in section["properties"].items():
        default = "needed" if field in needed else _default(fields)
        yield f"| `{name}.{field}` | {_type(fields)} | {default} | {fields.get('description', '')} |"
        if (
            within := next((each["$ref"] for each in (*fields.get("anyOf", ()), fields.get("items", {})) if "$ref" in each), None)
        ) is not None:
            yield from _rows(f"{name}.{field}{'[]' if 'items' in fields else ''}", schema["$defs"][within.rpartition("/")[2]], schema)


def _type(field: Mapping[str, Any]) -> str:
    field = next((each for each in field.get("anyOf", ()) if each.get("type") != "null"), field)
    kind = "map" if "$ref" in field else field.get("type", "string")
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if kind == "array" and "$ref" in field["items"]:
        return "list"
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if kind == "object":
        return "map of strings to strings"
    bounds = [text.format(f"{field[bound]:,}".replace(",", " ")) for bound, text in _BOUNDS.items() if bound in field]
    return " ".join([kind, *bounds])


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "" if default in (None, "", []) else f"`{json.dumps(default) if not isinstance(default, str) else default}`"


def test_every_field_says_what_it_means():
    schema = json_schema()
    silent = [f"{name}.{field}" for name, part in schema["$defs"].items() for field in _silent(part)]
    assert silent == []
    assert "description" in schema["properties"]["labels"]


def _silent(part: Mapping[str, Any]) -> Iterator[str]:
    return (field for field, value in part["properties"].items() if not value.get("description"))


def test_the_tables_are_those_of_the_code():
    [shown] = _TABLES.findall(DOCUMENT.read_text())
    assert shown == tables(), "run `make schema`"


def test_the_schema_is_that_of_the_code():
    assert json.loads((REPOSITORY / "docs/spec.schema.json").read_text()) == json_schema(), "run `make schema`"


if __name__ == "__main__":
    DOCUMENT.write_text(_TABLES.sub(lambda _: tables(), DOCUMENT.read_text()))
