"""Folders put into the tests' MinIO, each in a bucket of its own; and a node that keeps none of them."""

import tempfile
import uuid
from pathlib import Path

import boto3
import pytest

from trainer.prepare import node_cache
from trainer.storage import Folder


def without_node_cache(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all places where this node could keep something; it is to keep no weights."""
    disk.mkdir()
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", "off")
    monkeypatch.setenv("HOME", str(disk))
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    node_cache.scratch.cache_clear()
    return disk


def uploaded(folder: Path) -> str:
    """The URI under which it lies there."""
    bucket = f"of-tests-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    files = [path for path in folder.rglob("*") if path.is_file()]
    Folder(f"s3://{bucket}").write_all({f"base/{path.relative_to(folder)}": path for path in files})
    return f"s3://{bucket}/base"


def emptied(uri: str) -> None:
    """Nothing is left under it."""
    folder = Folder(uri)
    folder.delete([entry.path for entry in folder.list()])
