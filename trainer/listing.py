"""What lies in a folder, however its files are called: names that obstore cannot hold are passed over and told, not fatal.

obstore ends a whole listing at the first such name. Knows the disk and S3's listing call, nothing of what the files are.
"""

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lorafleet.contract.s3_settings import S3Settings
from lorafleet.errors import RunFailed

MAX_LISTED = 1_000_000  # files: more in memory would be the run's end, not only the style's

A_NAME = "names with control characters, or that are not UTF-8"
A_LINK_TO_NOTHING = "links to nothing, or to a folder above them"
NO_PLAIN_FILE = "pipes, sockets and devices"
_STAGED = re.compile(r"#\d+$")  # what obstore calls a file that it is still writing


@dataclass(frozen=True)
class Entry:
    """One object under a folder: its path relative to the folder, its size, and a tag that changes with its content."""

    path: str
    size_bytes: int
    version: str

    @property
    def etag(self) -> str | None:
        """S3's own; None on disk."""
        tag = self.version.rpartition("/")[0]
        return tag if tag.endswith('"') else None


@dataclass(frozen=True)
class Listing:
    """What was found, sorted by path, and what was passed over."""

    uri: str
    entries: list[Entry] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)  # (path, why)
    linked_out: set[str] = field(default_factory=set)  # entries that lie elsewhere, and are reached through a symbolic link

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if len(self.entries) > MAX_LISTED:
            raise RunFailed(f"{self.uri}: holds more than {MAX_LISTED:,} files; name a smaller folder", reason="TOO_MANY_FILES")

    def sorted(self) -> "Listing":
        self.entries.sort(key=lambda entry: entry.path)
        return self


def can_hold(key: str) -> bool:
    """Whether obstore can hold a key or path: no control characters, no empty parts, UTF-8."""
    try:
        parts = key.encode().split(b"/")
    except UnicodeEncodeError:  # bytes of the disk that are not UTF-8
        return False
    return all(part not in {b"", b".", b".."} and min(part) >= 0x20 and 0x7F not in part for part in parts)


def on_disk(uri: str, within: str | None = None) -> Listing:
    """Everything under a folder on disk, through symbolic links too; those that lead out of `within`, or else of the folder, are
    marked. An absent folder is an empty one. Raises OSError."""
    root, found = uri.removeprefix("file://") or os.sep, Listing(uri)
    above = (within or uri).removeprefix("file://") or os.sep
    with suppress(FileNotFoundError):
        _walk(root, os.path.join(os.path.realpath(above), ""), found)
    return found.sorted()


def _walk(root: str, inside: str, found: Listing) -> None:
    waiting, seen = [("", not os.path.join(os.path.realpath(root), "").startswith(inside))], {_identity(os.stat(root))}
    while waiting:
        folder, is_linked_out = waiting.pop()
        with os.scandir(os.path.join(root, folder)) as items:
            for item in items:
                path = f"{folder}{item.name}"
                if (state := _state(item, path, found)) is None:
                    continue
                leads_out = is_linked_out or (item.is_symlink() and not (os.path.realpath(item.path) + os.sep).startswith(inside))
                if not stat.S_ISDIR(state.st_mode):
                    found.add(Entry(path, state.st_size, f"{state.st_ino:x}-{state.st_mtime_ns:x}/{state.st_size}"))
                    found.linked_out.update({path} if leads_out else ())
                elif _identity(state) not in seen:
                    seen.add(_identity(state))
                    waiting.append((f"{path}/", leads_out))
                else:
                    found.passed_over.append((path, A_LINK_TO_NOTHING))


def _state(item: os.DirEntry[str], path: str, found: Listing) -> os.stat_result | None:
    """Of a plain file or a folder; None for what is passed over."""
    if _STAGED.search(item.name):
        return None
    if not can_hold(item.name):
        found.passed_over.append((path, A_NAME))
        return None
    try:
        state = item.stat()
    except OSError:
        if not item.is_symlink():  # gone since it was listed, as checkpoints go
            return None
        found.passed_over.append((path, A_LINK_TO_NOTHING))
        return None
    if stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode):
        return state
    found.passed_over.append((path, NO_PLAIN_FILE))
    return None


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def in_bucket(uri: str) -> Listing:
    """Everything under an s3:// URI, by boto3, which takes every key. Raises RunFailed."""
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError, ClientError

    client = S3Settings.of().boto3_client(Session(), connect_timeout=5, read_timeout=60)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    found = Listing(uri)
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else ""):
            for item in page.get("Contents", ()):
                _take(item["Key"][len(prefix) + 1 if prefix else 0 :], item, found)
    except (BotoCoreError, ClientError) as error:  # what is permanent, obstore's listing has met before
        raise RunFailed(f"{uri}: the store does not answer: {error}", reason="STORE_UNAVAILABLE", retryable=True) from None
    return found.sorted()


def _take(path: str, item: dict[str, Any], found: Listing) -> None:
    if can_hold(path):
        found.add(Entry(path, item["Size"], f"{item['ETag']}/{item['Size']}"))
    elif not path.endswith("/") or item["Size"]:  # else it is what a console makes of an empty folder
        found.passed_over.append((path, A_NAME))
