"""A bucket in another region, on a store that says so as S3 does: the service finds it, and all clients follow it there."""

from collections.abc import Callable

import pytest

from lorafleet.contract.s3_settings import REGIONS_ENV, learn_regions
from lorafleet.errors import LorafleetError
from service.store.client import Store, StoreError
from tests.refusing_store import refusing_store
from tests.regional_store import OBJECT, Says, regional_store
from tests.test_s3_everywhere import READERS, by_trainer, say

__all__ = ["say"]  # a fixture
Say = Callable[[dict[str, str]], None]
THERE = "eu-central-1"


@pytest.mark.parametrize(
    ("says", "usual"), [(Says.MOVED, "us-east-1"), (Says.MALFORMED, "ap-south-1"), (Says.MALFORMED_IN_BODIES, "us-east-1")]
)
async def test_the_service_finds_a_bucket_in_another_region_and_all_follow_it_there(
    says: Says, usual: str, say: Say, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(REGIONS_ENV, "")
    with regional_store(says, THERE) as env:
        say(env | {"AWS_REGION": usual})
        with pytest.raises(LorafleetError) as refused:
            by_trainer("s3://bucket/folder", "file")
        assert (refused.value.reason, refused.value.retryable) == ("BUCKET_IN_ANOTHER_REGION", False)
        store = Store()
        found = await store.regions(["s3://bucket/folder"])
        assert found == {"bucket": THERE}
        assert says is Says.MALFORMED_IN_BODIES or await store.exists("s3://bucket/folder/file")
        learn_regions(found)
        assert [read("s3://bucket/folder", "file") for read in READERS] == [OBJECT] * 3


@pytest.mark.timeout(30)
async def test_a_store_that_does_not_say_where_its_bucket_is_is_asked_for_the_location_and_refuses_in_one_line(say: Say):
    """boto3 asked the same again until Python's stack ended."""
    with regional_store(Says.MOVED_WITHOUT_A_WORD, THERE) as env:
        say(env | {"AWS_REGION": "us-east-1"})
        store = Store()
        assert await store.regions(["s3://bucket/folder"]) == {"bucket": THERE}
        for asked in (store.get("s3://bucket/folder/file"), store.exists("s3://bucket/folder/file"), store.is_empty("s3://bucket/folder")):
            with pytest.raises(StoreError) as refused:
                await asked
            assert refused.value.reason == "BUCKET_IN_ANOTHER_REGION"


@pytest.mark.parametrize(("location", "region"), [("", "us-east-1"), ("EU", "eu-west-1")])
async def test_the_names_that_only_the_oldest_regions_have_are_understood(location: str, region: str, say: Say):
    with regional_store(Says.MOVED_WITHOUT_A_WORD, region, location) as env:
        say(env | {"AWS_REGION": "ap-south-1"})
        assert await Store().regions(["s3://bucket/folder"]) == {"bucket": region}


async def test_a_store_that_answers_where_it_is_asked_is_not_asked_for_its_own_word_for_that_place(
    say: Say, monkeypatch: pytest.MonkeyPatch
):
    """Stores other than S3 say `WEUR` or `default` there, and take nothing that is signed for it."""
    with regional_store(Says.MOVED_WITHOUT_A_WORD, "auto", "WEUR") as env:
        say(env | {"AWS_REGION": "auto"})
        assert await Store().regions(["s3://bucket/folder"]) == {}


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket")])
async def test_what_refuses_for_another_reason_tells_no_region(status: int, code: str, say: Say):
    with refusing_store(status, code) as env:
        say(env)
        assert await Store().regions(["s3://bucket/folder"]) == {}
