"""A tenant's own credentials on a real S3 server: they reach what they may, and nothing else is reached with them."""

import json
from pathlib import Path

import boto3
import httpx
import pytest

from lorafleet.contract.layout import MANIFEST, join
from lorafleet.errors import InvalidSpec
from service.db.models import TenantRow
from service.jobs.creation import NewJob
from service.jobs.jobs import Jobs
from service.store.client import Store, StoreError
from service.store.credentials import CredentialsFile
from tests.service.access.members import make_tenant
from tests.service.api.test_signing import TEXT, finished, signed
from tests.service.world import World
from trainer import store_credentials
from trainer.storage import Folder

pytestmark = pytest.mark.integration
BUCKET = "two-tenants"


def limited_to(s3: dict[str, str], folder: str) -> str:
    """A profile of credentials that reach that folder of the bucket alone."""
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:*"], "Resource": [f"arn:aws:s3:::{BUCKET}/{folder}/*"]},
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{BUCKET}"],
                "Condition": {"StringLike": {"s3:prefix": [f"{folder}/*"]}},
            },
        ],
    }
    sts = boto3.client("sts", region_name=s3["AWS_REGION"], endpoint_url=s3["AWS_ENDPOINT_URL"])
    answer = sts.assume_role(RoleArn="arn:aws:iam:::role/any", RoleSessionName=folder, Policy=json.dumps(policy))
    made = answer["Credentials"]
    keys = {
        "aws_access_key_id": made["AccessKeyId"],
        "aws_secret_access_key": made["SecretAccessKey"],
        "aws_session_token": made["SessionToken"],
    }
    return "\n".join([f"[{folder}]", *(f"{name} = {value}" for name, value in keys.items()), ""])


@pytest.fixture
def store(s3: dict[str, str], tmp_path: Path) -> Store:
    client = boto3.client("s3", region_name=s3["AWS_REGION"])
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    path = tmp_path / "credentials"
    path.write_text(limited_to(s3, "acme") + limited_to(s3, "globex"))
    return Store(CredentialsFile(path))


async def test_a_tenants_store_is_asked_with_its_own_credentials(store: Store, world: World):
    for folder in ("acme", "globex"):
        await store.put(f"s3://{BUCKET}/{folder}/base/model_index.json", b"{}")
        await store.put(f"s3://{BUCKET}/{folder}/pictures/a.png", b"png")
        await make_tenant(world.tools.db, folder, store_credentials=folder)
    jobs = Jobs(world.tools.db, store, f"s3://{BUCKET}/acme/artifacts", world.tools.stop)

    async def create(tenant: str, folder: str) -> None:
        uris = {"base_model": {"uri": f"s3://{BUCKET}/{folder}/base"}, "dataset": {"uri": f"s3://{BUCKET}/{folder}/pictures"}}
        spec = world.spec(**uris, output={"uri": f"s3://{BUCKET}/{folder}/out-{world.folder.name}"})
        await jobs.create(NewJob(tenant=tenant, job_id="", request_id="", spec=spec), validate_only=True)

    await create("acme", "acme")
    with pytest.raises(InvalidSpec) as refused:  # no grant keeps it out here: the store itself does
        await create("acme", "globex")
    assert {violation.field for violation in refused.value.violations} == {"base_model.uri", "dataset.uri", "output.uri"}
    assert "denied" in refused.value.violations[0].message
    await create("globex", "globex")


async def test_urls_are_signed_with_the_tenants_credentials(store: Store, world: World):
    await make_tenant(world.tools.db, "acme")
    world.with_tools(store=store)
    name = await finished(world, output={"uri": f"s3://{BUCKET}/acme/signed-{world.folder.name}"})
    async with world.tools.db.transaction() as tx:
        row = await tx.session.get(TenantRow, "acme")
        assert row is not None
        row.store_credentials = "acme"
    urls = [file.url for file in (await signed(world, name)).files]
    assert all("X-Amz-Security-Token" in url for url in urls), "the service's own key has no session"
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(urls[0])).content == TEXT


async def test_the_service_reaches_nothing_of_another_tenant_with_them(store: Store):
    await store.put(f"s3://{BUCKET}/globex/x", b"x")
    assert await store.of("globex").get(f"s3://{BUCKET}/globex/x") == b"x"
    with pytest.raises(StoreError) as refused:
        await store.of("acme").get(f"s3://{BUCKET}/globex/x")
    assert refused.value.reason == "ACCESS_DENIED"


async def test_a_run_reaches_the_store_with_what_it_was_given(store: Store, monkeypatch: pytest.MonkeyPatch):
    await store.put(join(f"s3://{BUCKET}/acme", MANIFEST), b"{}")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-machine")
    for name, value in store.env_of("acme").items():
        monkeypatch.setenv(name, value)
    store_credentials.adopt(store.env_of("acme"))
    assert Folder(f"s3://{BUCKET}/acme").get(MANIFEST) == b"{}"
    with pytest.raises(Exception, match="denied"):
        Folder(f"s3://{BUCKET}/globex").get("x")
