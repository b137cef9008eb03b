"""Writes where in a document pydantic has found something wrong, as our messages write it: `adapter.target_modules[2]`. Pure."""

from collections.abc import Sequence


def field_path(location: Sequence[int | str]) -> str:
    """The path of one error's `loc`; empty for the document itself."""
    parts = location[:-1] if location[-1:] == ("[key]",) else location  # pydantic's mark of a mapping's key, beside the key itself
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
