"""The data path: S3 and folders alike, clear errors, and a store that goes away for half a minute."""

import os
import subprocess
import threading
import time
from pathlib import Path

import boto3
import pytest

from examples.demo_store import REPOSITORY, wait_until_alive
from lorafleet.errors import LorafleetError, RunFailed
from service.backends.ray_head import free_ports
from service.store.client import S3Backing
from tests.refusing_store import refusing_store
from trainer.storage import Folder, explain


@pytest.fixture(params=["s3", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "file":
        return Folder(f"file://{tmp_path}/a/b")
    request.getfixturevalue("s3")
    name = f"bucket-{abs(hash(tmp_path)) % 10**9}"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    return Folder(f"s3://{name}/a/b")


def test_what_is_put_is_there(folder: Folder, tmp_path: Path):
    assert folder.list() == []
    assert folder.get_or_none("x") is None
    (tmp_path / "local").write_bytes(b"from a file")
    folder.write_all({"x": b"12345", "sub/y": tmp_path / "local"})
    assert [(entry.path, entry.size_bytes) for entry in folder.list()] == [("sub/y", 11), ("x", 5)]
    assert folder.get("x") == b"12345"
    assert folder.get_range("x", 1, 3) == b"234"
    assert folder.child("sub").get("y") == b"from a file"
    assert folder.read_all(["x", "sub/y"]) == {"x": b"12345", "sub/y": b"from a file"}
    folder.download(["sub/y"], tmp_path / "down")
    assert (tmp_path / "down/sub/y").read_bytes() == b"from a file"
    folder.delete(["x", "never-there"])
    assert [entry.path for entry in folder.list()] == ["sub/y"]


def test_a_version_changes_with_the_content(folder: Folder):
    folder.put("x", b"one")
    before = folder.list()[0].version
    assert folder.list()[0].version == before
    folder.put("x", b"two!")
    assert folder.list()[0].version != before


def test_the_first_put_if_absent_wins(folder: Folder):
    assert folder.put_if_absent("manifest.json", b"first")
    assert not folder.put_if_absent("manifest.json", b"second")
    assert folder.get("manifest.json") == b"first"


def test_a_missing_object_is_named(folder: Folder):
    with pytest.raises(RunFailed, match="/a/b/absent: does not exist") as caught:
        folder.get("absent")
    assert caught.value.reason == "OBJECT_MISSING"


def test_a_missing_bucket_is_named(s3: dict[str, str]):
    for call in (Folder("s3://no-such-bucket/x").list, lambda: Folder("s3://no-such-bucket/x").put("y", b"")):
        with pytest.raises(RunFailed, match="the bucket does not exist") as caught:
            call()
        assert caught.value.reason == "BUCKET_MISSING"


def test_wrong_credentials_are_the_operators_and_never_shown(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(RunFailed, match="does not accept the credentials") as caught:
        Folder("s3://some-bucket/x").list()
    assert (caught.value.reason, caught.value.retryable) == ("STORE_CREDENTIALS_INVALID", True)
    assert "not-the-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (OSError(28, "No space left on device"), "DISK_FULL", True),
        (PermissionError(13, "Permission denied"), "ACCESS_DENIED", False),
        (FileNotFoundError("x"), "OBJECT_MISSING", False),
    ],
)
def test_every_error_says_what_to_do(error: OSError, reason: str, retryable: bool):
    told = explain("file:///x", error)
    assert (told.reason, told.retryable) == (reason, retryable)
    assert told.message.startswith("file:///x: ")


NAMES = ["a\nb", "x" * 1100, "a//b"]


@pytest.mark.parametrize("name", NAMES, ids=["control character", "too long", "empty part"])
def test_a_name_that_no_store_takes_is_told_so_at_once(folder: Folder, name: str):
    for call in (lambda: folder.put(name, b""), lambda: folder.get(name)):
        with pytest.raises(RunFailed, match="no store takes this name") as caught:
            call()
        assert (caught.value.reason, caught.value.retryable) == ("NAME_NOT_STORABLE", False)


@pytest.mark.parametrize(
    ("status", "code", "reason", "retryable"),
    [
        (400, "ExpiredToken", "STORE_CREDENTIALS_EXPIRED", True),
        (403, "RequestTimeTooSkewed", "CLOCK_SKEWED", True),
        (400, "KMS.DisabledException", "STORE_KEY_UNUSABLE", True),
        (403, "AccessDenied", "ACCESS_DENIED", False),
        (501, "NotImplemented", "STORE_ERROR", False),
    ],
)
def test_both_clients_see_the_same_fault(status: int, code: str, reason: str, retryable: bool, monkeypatch: pytest.MonkeyPatch):
    """Of the trainer every call; the control plane's own tests have its part."""
    monkeypatch.setattr("trainer.storage._RETRY", {"max_retries": 0})
    with refusing_store(status, code) as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        folder = Folder("s3://bucket/x")
        for call in (folder.list, lambda: folder.get("y"), lambda: folder.put("y", b""), lambda: folder.delete(["y"])):
            with pytest.raises(RunFailed) as caught:
                call()
            assert (caught.value.reason, caught.value.retryable) == (reason, retryable)
        with pytest.raises(LorafleetError) as refused:
            S3Backing().put("s3://bucket/x/y", b"")
        assert (refused.value.reason, refused.value.retryable) == (reason, retryable)


def test_a_store_that_is_down_for_half_a_minute_is_ridden_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A MinIO of this test's own, killed under a put and started again 30 s later."""
    port = free_ports(1)[0]
    secrets = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something-long"}
    for name, value in {**secrets, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    binary = subprocess.run([REPOSITORY / "scripts/get-minio.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    root = {"MINIO_ROOT_USER": "somebody", "MINIO_ROOT_PASSWORD": "something-long"}

    def start() -> subprocess.Popen[bytes]:
        command = [binary, "server", "--quiet", "--address", f"127.0.0.1:{port}", str(tmp_path / "data")]
        process = subprocess.Popen(command, env={**os.environ, **root}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_alive(f"http://127.0.0.1:{port}/minio/health/live")
        return process

    minio = start()
    boto3.session.Session().client("s3").create_bucket(Bucket="bucket")
    folder = Folder("s3://bucket/x")
    folder.put("before", b"1")
    minio.kill()
    minio.wait()
    started: list[subprocess.Popen[bytes]] = []
    comeback = threading.Timer(30, lambda: started.append(start()))
    comeback.start()
    began_s = time.monotonic()
    try:
        folder.put("during", b"2")
        assert time.monotonic() - began_s >= 29
        assert [entry.path for entry in folder.list()] == ["before", "during"]
    finally:
        comeback.join()
        for process in started:
            process.kill()
            process.wait()
