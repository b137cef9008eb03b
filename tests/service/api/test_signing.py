"""URLs of an artifact: for what the job committed, where it committed it, and from a store that has such URLs."""

import hashlib

import boto3
import httpx
import pytest
from sqlalchemy import update

from lorafleet.contract.layout import MANIFEST, join
from lorafleet.errors import FailedPrecondition, InvalidInput
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from service.api.signing import MAX_EXPIRE_S, sign_artifact
from service.core.resource_names import JobName
from service.db.models import JobRow
from service.untrusted.parsing import Parser
from tests.service.world import World

BUCKET = "signed-artifacts"
WEIGHTS = b"weights"
TEXT = b'{"format": "lorafleet-artifact-1", "files": {"a b.safetensors": {"size_bytes": 7, "sha256": "%s"}}}' % (
    hashlib.sha256(WEIGHTS).hexdigest().encode()
)


async def finished(world: World, **changes) -> JobName:
    """A job that has ended with an artifact."""
    name, run = await world.running(**changes)
    folder = join((await world.job(name)).output_uri, "adapter")
    await world.tools.store.put(join(folder, "a b.safetensors"), WEIGHTS)
    await world.tools.store.put(join(folder, MANIFEST), TEXT)
    artifact = pb.Artifact(uri=folder, manifest_sha256=hashlib.sha256(TEXT).hexdigest())
    await world.report(run, rpb.RunEvent(ended=rpb.StyleEnded(outcome=rpb.STYLE_OUTCOME_SUCCEEDED, artifact=artifact)))
    return name


async def signed(world: World, name: JobName, expire_s: int = 0) -> pb.SignArtifactResponse:
    return await sign_artifact(world.tools.db, world.tools.store, name, expire_s, Parser())


async def refused(world: World, name: JobName) -> str:
    with pytest.raises(FailedPrecondition) as error:
        await signed(world, name)
    return error.value.reason


async def test_a_folder_signs_nothing(world: World):
    assert await refused(world, await finished(world)) == "CANNOT_SIGN"


async def test_an_artifact_that_was_exchanged_is_not_signed(world: World):
    name = await finished(world)
    await world.tools.store.put(join((await world.job(name)).output_uri, "adapter", MANIFEST), TEXT + b" ")
    assert await refused(world, name) == "ARTIFACT_CHANGED"


async def test_an_artifact_that_was_recorded_outside_its_jobs_folder_is_not_signed(world: World):
    """By a server from before such reports were refused."""
    name = await finished(world)
    elsewhere = f"file://{world.folder}/artifacts/tenants/other/jobs/theirs/adapter"
    async with world.tools.db.transaction() as tx:
        await tx.session.execute(update(JobRow).values(artifact_uri=elsewhere))
    assert await refused(world, name) == "ARTIFACT_ELSEWHERE"


@pytest.mark.parametrize("expire_s", [-1, MAX_EXPIRE_S + 1])
async def test_urls_live_no_longer_than_half_a_day(world: World, expire_s: int):
    with pytest.raises(InvalidInput):
        await signed(world, JobName("acme", "any"), expire_s)


@pytest.mark.integration
async def test_whoever_has_the_urls_downloads_the_artifact_without_credentials(world: World, s3: dict[str, str]):
    client = boto3.client("s3", region_name=s3["AWS_REGION"])
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    name = await finished(world, output={"uri": f"s3://{BUCKET}/{world.folder.name}"})
    answer = await signed(world, name, 60)
    assert [file.path for file in answer.files] == [MANIFEST, "a b.safetensors"]
    assert answer.expire_time.seconds == int(world.clock.now().timestamp()) + 60
    async with httpx.AsyncClient() as anybody:
        assert [(await anybody.get(file.url)).content for file in answer.files] == [TEXT, WEIGHTS]
