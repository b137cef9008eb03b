"""The registry on a real S3 server: an import is copied from bucket to bucket, and who has its URLs downloads it until they expire."""

import hashlib
import time

import boto3
import httpx
import pytest

from lorafleet.contract.layout import MANIFEST
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.identity import Identity, Role
from service.api.signing import sign_version
from service.core.resource_names import AdapterName, parse_version
from service.reconcile.imports import import_once
from service.registry.imports import Imports, NewImport
from service.untrusted.parsing import Parser
from tests.service.registry.files import kohya_file
from tests.service.registry.made import version
from tests.service.world import World

pytestmark = pytest.mark.integration
OURS, THEIRS = "registry-of-ours", "files-of-theirs"
ANN = Identity(principal="ann", tenant="acme", role=Role.SUBMITTER)
DATA = kohya_file(8)


@pytest.fixture
def buckets(s3: dict[str, str]) -> None:
    client = boto3.client("s3", region_name=s3["AWS_REGION"])
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in {OURS, THEIRS} - there:
        client.create_bucket(Bucket=bucket)


async def imported(world: World, **fields: str) -> pb.AdapterVersion:
    tools, uri = world.tools, f"s3://{THEIRS}/{world.folder.name}/theirs.safetensors"
    await tools.store.put(uri, DATA)
    imports = Imports(db=tools.db, store=tools.store, parser=tools.parser, artifacts_uri=f"s3://{OURS}/{world.folder.name}")
    await imports.start(NewImport(name=AdapterName("acme", "fox"), uri=uri, **fields), ANN)
    assert await import_once(tools)
    return await version(world, "fox/versions/1")


async def signed(world: World, expire_s: int = 60) -> dict[str, str]:
    """URLs by path."""
    name = parse_version("tenants/acme/adapters/fox/versions/1")
    return {file.path: file.url for file in (await sign_version(world.tools.db, world.tools.store, name, expire_s, Parser())).files}


async def test_an_import_is_copied_and_downloaded_by_whoever_has_its_urls(world: World, buckets: None):
    made = await imported(world, sha256=hashlib.sha256(DATA).hexdigest())
    assert (made.state, made.family, made.rank) == (pb.ADAPTER_VERSION_STATE_READY, "sd1", 8)
    urls = await signed(world)
    assert list(urls) == [MANIFEST, "theirs.safetensors"]
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(urls["theirs.safetensors"])).content == DATA
        manifest = (await anybody.get(urls[MANIFEST])).content
    assert hashlib.sha256(manifest).hexdigest() == made.artifact.manifest_sha256


async def test_a_file_of_another_digest_is_damaged_and_not_kept(world: World, buckets: None):
    made = await imported(world, sha256="0" * 64)
    assert (made.state, made.reason) == (pb.ADAPTER_VERSION_STATE_DAMAGED, "DIGEST_MISMATCH")
    assert await world.tools.store.is_empty(made.artifact.uri)


async def test_urls_that_were_changed_or_have_expired_are_refused(world: World, buckets: None):
    await imported(world)
    url = (await signed(world))["theirs.safetensors"]
    async with httpx.AsyncClient() as anybody:
        for changed in (url.replace("theirs.safetensors", MANIFEST), url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"), url[:-1] + "x"):
            assert changed != url
            assert (await anybody.get(changed)).status_code == 403, "each is another request than the one that was signed"
        short, deadline = (await signed(world, 1))["theirs.safetensors"], time.monotonic() + 20
        while (answer := await anybody.get(short)).status_code == 200:
            assert time.monotonic() < deadline, "it is good for one second"
    assert answer.status_code == 403
