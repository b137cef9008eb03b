"""Lays specs over one another, as plain values: an item's fields over the defaults of its batch."""

from collections.abc import Mapping
from typing import Any, cast


def laid_over(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with every field of `own` set over them. Mappings (sections, labels) are merged key by key; lists are replaced."""
    merged = dict(defaults)
    for name, value in own.items():
        below = merged.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[name] = laid_over(cast(Mapping[str, Any], below), cast(Mapping[str, Any], value)) if both else value
    return merged
