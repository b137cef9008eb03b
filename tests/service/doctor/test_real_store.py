"""`lorafleet doctor` before a real S3 server: its conditional writes and its clock."""

import boto3
import pytest

from service.doctor.findings import State
from service.doctor.stores import check_store

pytestmark = pytest.mark.integration


async def test_a_real_store_honours_conditional_writes_and_keeps_time(s3: dict[str, str]):
    client = boto3.client("s3", region_name=s3["AWS_REGION"])
    client.create_bucket(Bucket="doctor")
    findings = await check_store("artifacts", "s3://doctor/artifacts")
    assert [(finding.check, finding.state) for finding in findings] == [
        ("artifacts", State.OK),
        ("artifacts", State.OK),
        ("artifacts clock", State.OK),
    ]
    assert client.list_objects_v2(Bucket="doctor")["KeyCount"] == 0, "nothing is left behind"


async def test_a_bucket_that_is_missing_is_named(s3: dict[str, str]):
    [finding] = await check_store("cache", "s3://no-such-bucket/cache")
    assert finding.state == State.FAILED
    assert "does not exist" in finding.message
