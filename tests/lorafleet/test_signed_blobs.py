"""Artifacts by signed URLs: over real HTTP, with a store that breaks off, and from a real S3 server without credentials."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from lorafleet.download import Damaged, download
from lorafleet.errors import LorafleetError, NotFound, Unavailable
from lorafleet.signed_blobs import SignedBlobs
from tests.lorafleet.test_download import FILES, manifest_of

CONTENT = {**FILES, "manifest.json": manifest_of(FILES)}
SHA256 = hashlib.sha256(CONTENT["manifest.json"]).hexdigest()


class Shop:
    """A store behind HTTP. Breaks off each answer after `most_bytes`; answers `status` when that is set."""

    def __init__(self) -> None:
        self.content = dict(CONTENT)
        self.most_bytes = 10**9
        self.status = 0
        self.ranges: list[str] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        data, asked = self.content.get(request.path[1:]), request.headers.get("range", "")
        self.ranges.append(asked)
        if self.status or data is None:
            request.send_error(self.status or 404)
            return
        rest = data[int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0 :]
        request.send_response(206 if asked else 200)
        request.send_header("content-length", str(len(rest)))
        request.end_headers()
        request.wfile.write(rest[: self.most_bytes])

    def blobs(self) -> SignedBlobs:
        return SignedBlobs({path: f"{self.address}/{path}" for path in CONTENT})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


def test_artifact_comes_by_its_urls(shop: Shop, tmp_path: Path) -> None:
    download(shop.blobs(), SHA256, tmp_path / "fox")
    assert {path: (tmp_path / "fox" / path).read_bytes() for path in FILES} == FILES


def test_file_that_breaks_off_goes_on_where_it_was(shop: Shop, tmp_path: Path) -> None:
    shop.most_bytes = 3000
    download(shop.blobs(), SHA256, tmp_path / "fox")
    assert {path: (tmp_path / "fox" / path).read_bytes() for path in FILES} == FILES
    assert {"bytes=3000-", "bytes=6000-"} <= set(shop.ranges)


def test_store_that_brings_nothing_is_given_up_and_nothing_is_left_behind(shop: Shop, tmp_path: Path) -> None:
    shop.most_bytes = 0
    with pytest.raises(Unavailable):
        download(shop.blobs(), SHA256, tmp_path / "fox")
    assert list(tmp_path.iterdir()) == []


def test_changed_file_is_refused(shop: Shop, tmp_path: Path) -> None:
    shop.content["README.md"] = b"a cat"
    with pytest.raises(Damaged, match=r"README\.md"):
        download(shop.blobs(), SHA256, tmp_path / "fox")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (403, LorafleetError), (503, Unavailable), (429, Unavailable)])
def test_refusal_names_the_file_and_never_its_url(shop: Shop, status: int, kind: type[LorafleetError]) -> None:
    shop.status = status
    with pytest.raises(kind) as caught, shop.blobs().open("README.md"):
        pass
    assert str(caught.value).startswith("README.md")
    assert "127.0.0.1" not in str(caught.value)


def test_only_http_is_followed() -> None:
    with pytest.raises(LorafleetError, match=r"manifest\.json"):
        SignedBlobs({"manifest.json": "file:///etc/passwd"})


def test_real_s3_server_serves_signed_urls(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="signed-artifacts")
    for path, data in CONTENT.items():
        client.put_object(Bucket="signed-artifacts", Key=path, Body=data)
    urls = {path: client.generate_presigned_url("get_object", {"Bucket": "signed-artifacts", "Key": path}) for path in CONTENT}
    for name in s3:
        monkeypatch.delenv(name)
    download(SignedBlobs(urls), SHA256, tmp_path / "fox")
    assert (tmp_path / "fox" / "README.md").read_bytes() == FILES["README.md"]
