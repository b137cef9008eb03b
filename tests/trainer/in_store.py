"""Folders put into the tests' MinIO, each in a bucket of its own."""

import uuid
from pathlib import Path

import boto3

from trainer.storage import Folder


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
