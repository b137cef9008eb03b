"""Reads what lies under a file:// or s3:// folder, for the SDK. Knows nothing of jobs.

The trainer has its own, faster way (obstore); here boto3 is enough, and only needed for s3://.
"""

import functools
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

from lorafleet.contract.s3_settings import S3Settings
from lorafleet.errors import LorafleetError, NotFound, Unavailable

PAGE_SIZE = 1000  # names in one answer of a listing: S3's own limit


class Blobs(Protocol):
    """A folder of files that can be read."""

    def open(self, path: str, *, start: int = 0) -> AbstractContextManager[IO[bytes]]:
        """A context manager of the file's bytes from `start` on, as a stream. Raises NotFound, and Unavailable, also while read."""
        ...

    def folders(self) -> Iterator[str]:
        """The names of the folders directly in this one, in no order. Raises NotFound."""
        ...


def blobs_at(uri: str) -> Blobs:
    """The folder at a URI. Raises LorafleetError when it cannot be read from here."""
    return _at(uri, _s3_client)


def opener() -> Callable[[str], Blobs]:
    """`blobs_at` for many folders, with one connection to S3 for all of them."""
    return functools.partial(_at, s3_client=functools.cache(_s3_client))


def _at(uri: str, s3_client: Callable[[], Any]) -> Blobs:
    if uri.startswith("file://"):
        return LocalBlobs(Path(uri.removeprefix("file://")))
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return S3Blobs(bucket, prefix.strip("/"), s3_client())
    raise LorafleetError(f"{uri} is neither file:// nor s3://", reason="UNKNOWN_STORE")


class LocalBlobs:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def open(self, path: str, *, start: int = 0) -> Generator[IO[bytes]]:
        try:
            file = (self._root / path).open("rb")
        except FileNotFoundError:
            raise NotFound(f"{self._root / path} does not exist on this machine") from None
        except OSError as error:
            raise LorafleetError(f"{self._root / path} cannot be read: {error.strerror}", reason="STORE") from None
        with file:
            file.seek(start)
            yield file

    def folders(self) -> Iterator[str]:
        try:
            yield from (entry.name for entry in os.scandir(self._root) if entry.is_dir() and not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{self._root} is not a folder on this machine") from None
        except OSError as error:
            raise LorafleetError(f"{self._root} cannot be read: {error.strerror}", reason="STORE") from None


class S3Blobs:
    """A prefix of a bucket. Credentials, region and endpoint are the usual ones of the AWS tools."""

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._client = client

    @contextmanager
    def open(self, path: str, *, start: int = 0) -> Generator[IO[bytes]]:
        key = f"{self._prefix}/{path}" if self._prefix else path
        with _told_of(f"s3://{self._bucket}/{key}"):
            rest = {"Range": f"bytes={start}-"} if start else {}
            body = self._client.get_object(Bucket=self._bucket, Key=key, **rest)["Body"]
            with closing(body):
                yield body

    def folders(self) -> Iterator[str]:
        prefix = f"{self._prefix}/" if self._prefix else ""
        asked = {"Bucket": self._bucket, "Prefix": prefix, "Delimiter": "/", "PaginationConfig": {"PageSize": PAGE_SIZE}}
        with _told_of(f"s3://{self._bucket}/{prefix}"):
            for page in self._client.get_paginator("list_objects_v2").paginate(**asked):
                yield from (folder["Prefix"][len(prefix) : -1] for folder in page.get("CommonPrefixes", ()))


@contextmanager
def _told_of(uri: str) -> Generator[None]:
    """boto3's errors as ours, each with the URI that it is about."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refused(uri, cast(Any, error).response["Error"]) from None
    except BotoCoreError as error:
        raise Unavailable(f"{uri}: {error}", reason="STORE") from None


def _s3_client() -> Any:
    try:
        from boto3.session import Session
    except ImportError:
        raise LorafleetError("reading s3:// needs boto3: pip install 'lorafleet[s3]'", reason="NOT_INSTALLED") from None
    return S3Settings.of().boto3_client(Session(), connect_timeout=5, read_timeout=60)


def _refused(uri: str, error: dict[str, str]) -> LorafleetError:
    if error.get("Code") in {"NoSuchKey", "NoSuchBucket", "404"}:
        return NotFound(f"{uri} does not exist")
    return LorafleetError(f"{uri}: {error.get('Code')}: {error.get('Message')}", reason="STORE")
