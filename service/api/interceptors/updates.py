"""Finds the name in requests that carry the thing that they update, and have no name of their own (AIP-134)."""

from typing import Any

_MASK = "update_mask"


def updated_name(request: Any) -> str:
    """The name of what a request updates; empty for other requests."""
    fields = request.DESCRIPTOR.fields if hasattr(request, "DESCRIPTOR") else ()
    if all(field.name != _MASK for field in fields):
        return ""
    carried = [getattr(request, field.name) for field in fields if field.message_type is not None and field.name != _MASK]
    return next((str(each.name) for each in carried if getattr(each, "name", "")), "")
