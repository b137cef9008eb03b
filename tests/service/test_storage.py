"""The store: whole objects, clear refusals, and no credential in any message."""

import io
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber

from lorafleet.errors import Unavailable
from service.storage import S3Backing, Store, StoreError, _client

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
        ("NoSuchBucket", 404, "BUCKET_MISSING", 'bucket "raw" does not exist; create it'),
        ("AccessDenied", 403, "ACCESS_DENIED", "is denied (AccessDenied); check the AWS credentials"),
        ("InvalidAccessKeyId", 403, "ACCESS_DENIED", "is denied"),
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


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), Unavailable, "check AWS_ENDPOINT_URL"),
        (NoCredentialsError(), StoreError, "set AWS_ACCESS_KEY_ID"),
    ],
)
def test_an_absent_store_and_absent_credentials_are_told_apart(stubbed, error: Exception, kind: type[Exception], told: str):
    backing, _ = stubbed

    def fail(*_args, **_kwargs):
        raise error

    backing._client.get_object = fail
    with pytest.raises(kind, match=told):
        backing.get(URI)
