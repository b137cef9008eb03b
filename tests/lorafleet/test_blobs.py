"""Reading from a real S3 server, and from folders."""

import hashlib
import sys
from pathlib import Path

import boto3
import pytest

from lorafleet.blobs import blobs_at
from lorafleet.download import download
from lorafleet.errors import LorafleetError, NotFound, Unavailable
from tests.lorafleet.test_download import FILES, manifest_of


@pytest.fixture
def bucket(s3: dict[str, str], request: pytest.FixtureRequest) -> str:
    name = "blobs-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=name)
    return name


def test_download_from_s3_brings_the_committed_artifact(bucket: str, tmp_path: Path) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    for path, data in {**FILES, "manifest.json": manifest_of(FILES)}.items():
        client.put_object(Bucket=bucket, Key=f"jobs/fox/adapter/{path}", Body=data)
    blobs = blobs_at(f"s3://{bucket}/jobs/fox/adapter")
    download(blobs, hashlib.sha256(manifest_of(FILES)).hexdigest(), tmp_path / "fox")
    assert {path: (tmp_path / "fox" / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize("path", ["absent", "absent/deep"])
def test_absent_object_is_named(bucket: str, path: str) -> None:
    with pytest.raises(NotFound, match=f"s3://{bucket}/jobs/{path}"), blobs_at(f"s3://{bucket}/jobs").open(path):
        pass


def test_absent_bucket_is_named(s3: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="s3://no-such-bucket/x"), blobs_at("s3://no-such-bucket").open("x"):
        pass


def test_refused_credentials_are_an_error_that_holds_no_secret(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    with pytest.raises(LorafleetError, match="SignatureDoesNotMatch") as caught, blobs_at(f"s3://{bucket}").open("x"):
        pass
    assert "wrong-and-secret" not in str(caught.value)


def test_store_that_does_not_answer_is_worth_another_try(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unavailable) as caught, blobs_at("s3://bucket").open("x"):
        pass
    assert caught.value.retryable


def test_s3_without_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(LorafleetError, match=r"lorafleet\[s3\]"):
        blobs_at("s3://bucket")
