"""The store on a real S3 server: objects, and every refusal that a user may meet."""

import boto3
import httpx
import pytest

from lorafleet.errors import InvalidSpec, OperatorsFault, Unavailable
from service.store import client as storage
from service.store.client import Store, StoreError
from service.store.spec_checks import Shared, StoreChecks

pytestmark = pytest.mark.integration
BUCKET = "control-plane"


@pytest.fixture
def store(s3: dict[str, str]) -> Store:
    client = boto3.client("s3", region_name=s3["AWS_REGION"])
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    return Store()


async def refused(store: Store, uri: str) -> str:
    with pytest.raises(StoreError) as error:
        await store.put(uri, b"x")
    return error.value.reason


async def test_objects_are_written_read_and_deleted(store: Store):
    uri = f"s3://{BUCKET}/folder/x.json"
    assert (await store.get(uri), await store.exists(uri), await store.is_empty(f"s3://{BUCKET}/folder")) == (None, False, True)
    await store.put(uri, b"x")
    assert (await store.get(uri), await store.exists(uri), await store.is_empty(f"s3://{BUCKET}/folder")) == (b"x", True, False)
    assert await store.is_empty(f"s3://{BUCKET}/fold"), "a name's beginning is no folder"
    await store.delete(uri)
    assert not await store.exists(uri)


async def test_a_range_ends_with_its_object(store: Store):
    uri = f"s3://{BUCKET}/folder/range"
    assert await store.get_range(uri, 0, 9) is None
    await store.put(uri, b"0123456789")
    assert [await store.get_range(uri, start, 9) for start in (0, 8, 10, 11)] == [b"012345678", b"89", b"", b""]


async def test_a_missing_bucket_and_a_wrong_secret_are_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch):
    assert await refused(store, "s3://no-such-bucket/x") == "BUCKET_MISSING"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(OperatorsFault) as fault:  # the service's own credentials: no job is to blame
        await Store().put(f"s3://{BUCKET}/x", b"x")
    assert fault.value.reason == "STORE_CREDENTIALS_INVALID"


async def test_an_absent_server_may_be_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 1)
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 does not answer"):
        await Store().put(f"s3://{BUCKET}/x", b"x")


async def test_every_problem_of_a_spec_is_named_with_its_field(store: Store):
    shared = Shared(store, "s3://no-such-bucket/base", (("uri", f"s3://{BUCKET}/nothing"),), "s3://not-there-either")
    with pytest.raises(InvalidSpec) as invalid:
        await StoreChecks().check(shared, "s3://not-there-either/out")
    told = {violation.field: violation.message for violation in invalid.value.violations}
    assert set(told) == {"base_model.uri", "dataset.uri", "output.uri"}
    assert 'bucket "no-such-bucket": the bucket does not exist' in told["base_model.uri"]
    assert "nothing lies under" in told["dataset.uri"]
    assert 'bucket "not-there-either": the bucket does not exist' in told["output.uri"]


async def test_a_good_spec_passes_and_leaves_nothing(store: Store):
    await store.put(f"s3://{BUCKET}/base/model_index.json", b"{}")
    await store.put(f"s3://{BUCKET}/pictures/a.png", b"png")
    await StoreChecks().check(
        Shared(store, f"s3://{BUCKET}/base", (("uri", f"s3://{BUCKET}/pictures"),), f"s3://{BUCKET}/out"), f"s3://{BUCKET}/out"
    )
    assert await store.is_empty(f"s3://{BUCKET}/out")


async def test_a_signed_url_reads_its_object_without_credentials_and_nothing_else(store: Store):
    uri = f"s3://{BUCKET}/signed/a b.safetensors"
    await store.put(uri, b"weights")
    url = store.signed_url(uri, 60)
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(url)).content == b"weights"
        assert (await anybody.get(url.replace("a%20b", "other"))).status_code == 403
        assert (await anybody.put(url, content=b"x")).status_code == 403
        assert (await anybody.get(url.partition("?")[0])).status_code == 403
