"""One way to say where S3 is: what one of the SDK, the control plane and the trainer reaches, all three do. On real MinIOs."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from examples.demo_store import start_minio
from examples.processes import Servers
from lorafleet.blobs import blobs_at
from lorafleet.contract.s3_settings import REGIONS_ENV, learn_regions, parse_regions, shown_regions
from lorafleet.errors import LorafleetError
from service.store.client import S3Backing, Store
from tests.certificates import Authority, server_pair
from tests.refusing_store import refusing_store
from trainer.storage import Folder

REGION = "eu-central-1"  # not the default: a client that does not know it is refused
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
SECRET = "from-the-store"


def by_sdk(uri: str, path: str) -> bytes:
    with blobs_at(uri).open(path) as file:
        return file.read()


def by_service(uri: str, path: str) -> bytes | None:
    return S3Backing().get(f"{uri}/{path}")


def by_trainer(uri: str, path: str) -> bytes:
    return Folder(uri).get(path)


READERS = [by_sdk, by_service, by_trainer]
Reader = Callable[[str, str], bytes | None]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Takes `bucket.store.test` for a bucket, and no other region than its own."""
    folder = tmp_path_factory.mktemp("plain")
    with Servers(folder) as servers:
        reached = start_minio(servers, folder / "data", MINIO_DOMAIN="store.test", MINIO_SITE_REGION=REGION) | {"AWS_REGION": REGION}
        fill(reached)
        yield reached


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Speaks TLS, with a certificate that no machine trusts of itself."""
    folder = tmp_path_factory.mktemp("private")
    authority, other = Authority(folder), Authority(folder, "another ca")
    pair, certs = server_pair(authority), folder / "certs"
    certs.mkdir()
    pair.cert.rename(certs / "public.crt")
    pair.key.rename(certs / "private.key")
    bundle = folder / "bundle.pem"
    bundle.write_bytes(other.file.read_bytes() + authority.file.read_bytes())
    with Servers(folder) as servers:
        reached = start_minio(servers, folder / "data", certs_dir=certs) | {"AWS_CA_BUNDLE": str(bundle)}
        fill(reached)
        yield reached


def fill(reached: dict[str, str]) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=reached["AWS_ENDPOINT_URL"],
        region_name=reached["AWS_REGION"],
        verify=reached.get("AWS_CA_BUNDLE"),
        aws_access_key_id=reached["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=reached["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": reached["AWS_REGION"]})  # pyright: ignore
    client.put_object(Bucket="bucket", Key="folder/file", Body=SECRET.encode())


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, str]], None]:
    """Sets the environment; what the machine itself says of S3 does not count."""

    def set_all(environment: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for file in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(file, str(tmp_path / file))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return set_all


def write_files(folder: Path, reached: dict[str, str]) -> dict[str, str]:
    """The same said in the AWS files, in a profile."""
    config, credentials = folder / "config", folder / "credentials"
    ca = f"ca_bundle = {reached['AWS_CA_BUNDLE']}\n" if "AWS_CA_BUNDLE" in reached else ""
    config.write_text(f"[profile lora]\nendpoint_url = {reached['AWS_ENDPOINT_URL']}\nregion = {reached['AWS_REGION']}\n{ca}")
    credentials.write_text("[lora]\n" + "".join(f"{key.lower()} = {reached[key]}\n" for key in KEYS))
    return {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_PROFILE": "lora"}


@pytest.mark.parametrize("read", READERS)
def test_by_the_environment(plain: dict[str, str], read: Reader, say: Callable[[dict[str, str]], None]):
    say(plain)
    assert read("s3://bucket/folder", "file") == SECRET.encode()


@pytest.mark.parametrize("read", READERS)
def test_by_the_aws_files_alone(plain: dict[str, str], read: Reader, say: Callable[[dict[str, str]], None], tmp_path: Path):
    say(write_files(tmp_path, plain))
    assert read("s3://bucket/folder", "file") == SECRET.encode()


@pytest.mark.parametrize("read", READERS)
def test_with_the_bucket_in_the_host_name(plain: dict[str, str], read: Reader, say: Callable[[dict[str, str]], None]):
    """No name server knows `bucket.store.test`, so the MinIO is the clients' proxy: it hears the host that they meant."""
    by_name = {"AWS_ENDPOINT_URL": "http://store.test", "LORAFLEET_S3_ADDRESSING_STYLE": "virtual"}
    say(plain | by_name | {"http_proxy": plain["AWS_ENDPOINT_URL"], "no_proxy": ""})
    assert read("s3://bucket/folder", "file") == SECRET.encode()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("in_files", [False, True], ids=["environment", "files"])
def test_over_tls_by_an_authority_of_ones_own(
    private: dict[str, str], read: Reader, in_files: bool, say: Callable[[dict[str, str]], None], tmp_path: Path
):
    say(write_files(tmp_path, private) if in_files else private)
    assert read("s3://bucket/folder", "file") == SECRET.encode()


@pytest.mark.parametrize("read", READERS)
def test_what_cannot_be_meant_is_said(plain: dict[str, str], read: Reader, say: Callable[[dict[str, str]], None]):
    say(plain | {"LORAFLEET_S3_ADDRESSING_STYLE": "virtul"})
    with pytest.raises(LorafleetError, match='"virtul" is not one of auto, path, virtual') as refused:
        read("s3://bucket/folder", "file")
    assert not refused.value.retryable


async def test_a_bucket_in_another_region_is_found_once_and_all_follow_it_there(
    plain: dict[str, str], say: Callable[[dict[str, str]], None], monkeypatch: pytest.MonkeyPatch
):
    """The service and the SDK follow it by themselves; a run's client would not, and is told."""
    say(plain | {"AWS_REGION": "us-east-1"})
    monkeypatch.setenv(REGIONS_ENV, "")
    store = Store()
    found = await store.regions(["s3://bucket/folder", "s3://bucket/other", "file:///nowhere"])
    assert found == {"bucket": REGION}
    with pytest.raises(LorafleetError) as refused:
        by_trainer("s3://bucket/folder", "file")
    assert (refused.value.reason, refused.value.retryable) == ("BUCKET_IN_ANOTHER_REGION", False)
    learn_regions(parse_regions(shown_regions(found)))
    assert [read("s3://bucket/folder", "file") for read in READERS] == [SECRET.encode()] * 3


async def test_a_bucket_in_the_usual_region_need_not_be_told(plain: dict[str, str], say: Callable[[dict[str, str]], None]):
    say(plain)
    assert await Store().regions(["s3://bucket/folder"]) == {}


async def test_a_store_that_refuses_tells_no_region_and_stops_nothing(say: Callable[[dict[str, str]], None]):
    with refusing_store(400, "ExpiredToken") as env:
        say(env)
        assert await Store().regions(["s3://bucket/folder"]) == {}
