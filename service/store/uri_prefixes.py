"""Tells which URIs lie under which granted prefix. Pure; compares whole names, and takes no URI that could be read in two ways."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from lorafleet.errors import Violation

MAX_SHOWN = 8
MAX_BYTES = 2000  # of a granted prefix, as of a spec's URIs: PostgreSQL's indexes take no more than 2,704
_FORM = re.compile(r"(?P<scheme>s3|file)://(?P<rest>.*)", re.DOTALL)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\?#]")
_ROUNDS = 5  # of decoding: what is still encoded after that is refused


@dataclass(frozen=True)
class Granted:
    """A prefix as it was granted. A last `*` stands for any rest of that one name."""

    prefix: str
    may_write: bool = False


def parts(uri: str) -> tuple[str, ...] | None:
    """Scheme, then the bucket and the names of the folders; None for a URI that no grant can hold.

    A store reads a key as it stands, a proxy before it may resolve `..`, `//` and `%2e`: a URI with any of them means one thing
    here and another there, so it is refused. file:// names are decoded, as the store decodes them.
    """
    match = _FORM.fullmatch(uri)
    if match is None:
        return None
    scheme, rest = match["scheme"], match["rest"]
    if scheme == "file":
        if not rest.startswith("/"):
            return None
        rest = rest[1:]
    names = rest.removesuffix("/").split("/")
    if not all(_is_plain(name) for name in names):
        return None
    return (scheme, *(unquote(name) if scheme == "file" else name for name in names))


def _is_plain(name: str) -> bool:
    for _ in range(_ROUNDS):
        if name in {"", ".", ".."} or "/" in name or _UNSAFE.search(name):
            return False
        decoded = unquote(name)
        if decoded == name:
            return True
        name = decoded
    return False


def lies_in(uri: str, folder: str) -> bool:
    """Whether the URI is the folder or lies in it, name by name."""
    outer, names = parts(folder), parts(uri)
    return outer is not None and names is not None and names[: len(outer)] == outer


def within(uri: str, prefix: str) -> bool:
    """Whether the URI is what a prefix grants, or lies under it."""
    under, names = parts(prefix), parts(uri)
    if under is None or names is None or len(names) < len(under):
        return False
    *folders, last = under
    if list(names[: len(folders)]) != folders:
        return False
    name = names[len(folders)]
    return name.startswith(last[:-1]) if last.endswith("*") else name == last


def problem(field: str, uri: str, granted: Sequence[Granted], *, tenant: str, write: bool = False) -> Violation | None:
    """What stands against the use of a URI; None: nothing."""
    if parts(uri) is None:
        message = f"{uri!r} is not a plain URI; write it without '.', '..', '//', '\\', '?', '#' and without encoding them"
        return Violation(field=field, message=message)
    usable = [one.prefix for one in granted if one.may_write or not write]
    if any(within(uri, prefix) for prefix in usable):
        return None
    how = " for writing" if write else ""
    shown = ", ".join(usable[:MAX_SHOWN]) + (f" and {len(usable) - MAX_SHOWN} more" if len(usable) > MAX_SHOWN else "")
    return Violation(field=field, message=f'{_place(uri)} is not granted to tenant "{tenant}"{how}; granted{how}: {shown or "nothing"}')


def _place(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f'bucket "{rest.partition("/")[0]}"' if scheme == "s3" else uri


def mistake(prefix: str) -> str | None:
    """What is wrong with a prefix to be granted; None: nothing."""
    if len(prefix.encode()) > MAX_BYTES:
        return f"{prefix[:80]!r}… is longer than {MAX_BYTES:,} bytes"
    found = parts(prefix)
    if found is None:
        return f"{prefix!r} is no s3://bucket/folder and no file:///folder, written plainly"
    if "*" in "".join(found[:-1]) or "*" in found[-1][:-1] or found[-1] == "*":
        return f"{prefix!r}: a * stands at the end of the last name, after at least one letter, and nowhere else"
    return None
