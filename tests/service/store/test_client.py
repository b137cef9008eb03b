"""The store: whole objects, clear refusals, and no credential in any message."""

import asyncio
import errno
import io
import os
import socket
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from lorafleet.contract.store_faults import OPERATORS
from lorafleet.errors import OperatorsFault, Unavailable
from service.store import bounded_reads, file_store
from service.store.client import S3Backing, Store, StoreError, _client

URI = "s3://raw/folder/x.json"


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> tuple[S3Backing, Stubber]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRET")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    backing = S3Backing()
    backing._client = _client(None)
    stubber = Stubber(backing._client)
    stubber.activate()
    return backing, stubber


async def test_files_are_written_whole_read_and_deleted(tmp_path: Path):
    store, uri = Store(), f"file://{tmp_path}/a/b.json"
    assert await store.get(uri) is None
    assert await store.is_empty(f"file://{tmp_path}/a")
    await store.put(uri, b"one")
    await store.put(uri, b"two")
    assert (await store.get(uri), await store.exists(uri), await store.is_empty(f"file://{tmp_path}/a")) == (b"two", True, False)
    await store.delete(uri)
    await store.delete(uri)
    assert await store.is_empty(f"file://{tmp_path}/a"), "no temporary file is left"


async def test_the_first_of_two_files_stays_and_nothing_else_is_left(tmp_path: Path):
    store, uri = Store(), f"file://{tmp_path}/a/b.json"
    assert [await store.put_if_absent(uri, data) for data in (b"first", b"second")] == [True, False]
    assert await store.get(uri) == b"first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


@pytest.fixture(params=["fifo", "socket", "a link to a fifo"])
def no_plain_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "x"
    match request.param:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
        case _:
            os.mkfifo(tmp_path / "fifo")
            path.symlink_to(tmp_path / "fifo")
    return path


async def test_what_is_no_plain_file_is_refused_and_nobody_waits_for_it(no_plain_file: Path):
    store, uri = Store(), f"file://{no_plain_file}"
    for reading in (store.get(uri), store.get_range(uri, 0, 8)):
        with pytest.raises(StoreError, match="is no plain file") as refused:
            await asyncio.wait_for(reading, 10)
        assert refused.value.reason == "NO_PLAIN_FILE"
    assert not await store.exists(uri)


async def test_a_folder_is_no_object(tmp_path: Path):
    assert await Store().get(f"file://{tmp_path}") is None


async def test_an_object_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(StoreError, match="is larger than 10 bytes"):
        await Store().get(f"file://{path}", most_bytes=10)
    with pytest.raises(StoreError, match="is larger than"):
        await Store().get(f"file://{path}")
    assert await Store().get_range(f"file://{path}", 2**40 - 2, 8) == bytes(2)


class Body(io.BytesIO):
    num_read = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.num_read += len(data)
        return data


@pytest.mark.parametrize("said", [{"ContentLength": 2**40}, {"ContentLength": 3}, {}])
def test_of_a_large_s3_object_no_more_is_read_than_is_asked_for(stubbed, said: dict):
    backing, stubber = stubbed
    body = Body(bytes(1000))
    stubber.add_response("get_object", {"Body": body, **said})
    with pytest.raises(StoreError) as refused:
        backing.get(URI, 10)
    assert refused.value.reason == "OBJECT_TOO_LARGE"
    assert body.num_read <= 11
    assert body.closed

    part = Body(bytes(1000))
    stubber.add_response("get_object", {"Body": part, **said})
    assert backing.get_range(URI, 0, 8) == bytes(8), "of a store that knows no ranges"


def test_an_answer_that_does_not_end_is_given_up(stubbed, monkeypatch: pytest.MonkeyPatch):
    backing, stubber = stubbed
    times = iter(range(0, 1000, 15))
    monkeypatch.setattr(bounded_reads.time, "monotonic", lambda: next(times))
    stubber.add_response("get_object", {"Body": Body(bytes(2**22)), "ContentLength": 2**22})
    with pytest.raises(Unavailable, match="could not be read within"):
        backing.get(URI)


async def test_another_kind_of_store_is_refused():
    with pytest.raises(StoreError):
        await Store().get("gs://bucket/x")


def test_objects_are_read_and_their_absence_is_no_error(stubbed):
    backing, stubber = stubbed
    stubber.add_response("get_object", {"Body": io.BytesIO(b"x")}, {"Bucket": "raw", "Key": "folder/x.json"})
    stubber.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    stubber.add_client_error("head_object", "404", http_status_code=404)
    assert (backing.get(URI), backing.get(URI), backing.exists(URI)) == (b"x", None, False)


def test_the_first_of_two_objects_stays(stubbed):
    backing, stubber = stubbed
    asked = {"Bucket": "raw", "Key": "folder/x.json", "Body": b"x", "IfNoneMatch": "*"}
    stubber.add_response("put_object", {}, asked)
    stubber.add_client_error("put_object", "PreconditionFailed", http_status_code=412, expected_params=asked)
    assert [backing.put_if_absent(URI, b"x") for _ in range(2)] == [True, False]


def test_a_folder_is_asked_for_one_key_under_its_name_alone(stubbed):
    backing, stubber = stubbed
    stubber.add_response("list_objects_v2", {"KeyCount": 0}, {"Bucket": "raw", "Prefix": "folder/", "MaxKeys": 1})
    assert backing.is_empty("s3://raw/folder")


@pytest.mark.parametrize(
    ("code", "status", "reason", "told"),
    [
        ("NoSuchBucket", 404, "BUCKET_MISSING", 'bucket "raw": the bucket does not exist; create it'),
        ("AccessDenied", 403, "ACCESS_DENIED", 'bucket "raw": access denied; check the policy'),
        ("KeyTooLongError", 400, "NAME_NOT_STORABLE", "no store takes this name"),
        ("InvalidRequest", 400, "STORE_ERROR", "InvalidRequest"),
    ],
)
def test_a_refusal_says_what_to_do(stubbed, code: str, status: int, reason: str, told: str):
    backing, stubber = stubbed
    stubber.add_client_error("put_object", code, http_status_code=status)
    with pytest.raises(StoreError) as refused:
        backing.put(URI, b"x")
    assert refused.value.reason == reason
    assert told in refused.value.message
    assert "SECRET" not in refused.value.message.upper()


def test_a_busy_store_may_be_tried_again(stubbed):
    backing, stubber = stubbed
    stubber.add_client_error("put_object", "SlowDown", http_status_code=503)
    with pytest.raises(Unavailable):
        backing.put(URI, b"x")


@pytest.mark.parametrize(("code", "status"), [("ExpiredToken", 400), ("RequestTimeTooSkewed", 403), ("KMS.DisabledException", 400)])
def test_what_the_operators_must_mend_is_no_refusal_of_a_job(stubbed, code: str, status: int):
    backing, stubber = stubbed
    stubber.add_client_error("put_object", code, http_status_code=status)
    with pytest.raises(OperatorsFault, match=code) as refused:
        backing.put(URI, b"x")
    assert refused.value.reason in OPERATORS


def test_a_bucket_name_that_no_store_takes_is_not_told_as_a_store_that_is_away(stubbed):
    with pytest.raises(StoreError, match="no store takes this name"):
        S3Backing().get("s3://no bucket at all/x")


def test_an_answer_that_breaks_off_may_be_tried_again(stubbed):
    backing, stubber = stubbed
    body = StreamingBody(io.BytesIO(b"half"), content_length=8)
    stubber.add_response("get_object", {"Body": body}, {"Bucket": "raw", "Key": "folder/x.json"})
    with pytest.raises(Unavailable):
        backing.get(URI)


async def test_a_full_disk_is_the_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_store.os, "fdopen", full)
    with pytest.raises(OperatorsFault, match=f"{tmp_path}/x: disk full") as refused:
        await Store().put(f"file://{tmp_path}/x", b"x")
    assert refused.value.reason == "DISK_FULL"


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), Unavailable, "check AWS_ENDPOINT_URL"),
        (NoCredentialsError(), OperatorsFault, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_an_absent_store_and_absent_credentials_are_told_apart(stubbed, error: Exception, kind: type[Exception], told: str):
    backing, _ = stubbed

    def fail(*_args, **_kwargs):
        raise error

    backing._client.get_object = fail
    with pytest.raises(kind, match=told):
        backing.get(URI)
