"""What the environment and the AWS files say of S3, read as botocore reads it, and what cannot be meant."""

import os
from pathlib import Path

import boto3
import pytest

from lorafleet.contract.s3_settings import S3Settings
from lorafleet.errors import InvalidInput

CONFIG = """
[default]
region = eu-west-1
endpoint_url = http://default.example

[profile plain]
region = eu-central-1
endpoint_url = http://plain.example

[profile served]
services = ours
endpoint_url = http://others.example
s3 =
    addressing_style = virtual

[services ours]
s3 =
    endpoint_url = http://s3.example
"""
CREDENTIALS = "[keys-only]\naws_access_key_id = x\naws_secret_access_key = y\nregion = ap-south-1\n"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "credentials").write_text(CREDENTIALS)
    return {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"AWS_PROFILE": "plain"},
        {"AWS_PROFILE": "served"},
        {"AWS_PROFILE": "keys-only"},
        {"AWS_PROFILE": "plain", "AWS_ENDPOINT_URL": "http://env.example"},
        {"AWS_PROFILE": "served", "AWS_ENDPOINT_URL": "http://env.example", "AWS_ENDPOINT_URL_S3": "http://s3-env.example"},
        {"AWS_PROFILE": "plain", "AWS_DEFAULT_REGION": "us-west-2"},
    ],
)
def test_they_are_read_as_botocore_reads_them(env: dict[str, str], more: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (env | more).items():
        monkeypatch.setenv(name, value)
    theirs, ours = boto3.session.Session().client("s3").meta, S3Settings.of()
    assert (ours.endpoint or theirs.endpoint_url, ours.region) == (theirs.endpoint_url, theirs.region_name)


def test_without_any_it_is_aws(tmp_path: Path):
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    assert S3Settings.of(nothing) == S3Settings(endpoint=None, region="us-east-1", addressing_style="auto", ca_bundle=None)


def test_the_addressing_style_is_a_path_where_there_is_an_endpoint_unless_it_is_said(env: dict[str, str]):
    assert S3Settings.of(env).addressing_style == "path"
    assert S3Settings.of({**env, "AWS_PROFILE": "served"}).addressing_style == "virtual"
    assert S3Settings.of({**env, "LORAFLEET_S3_ADDRESSING_STYLE": "virtual"}).addressing_style == "virtual"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LORAFLEET_S3_ADDRESSING_STYLE", "virtul", '"virtul" is not one of auto, path, virtual'),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem", "/nowhere/ca.pem cannot be read: No such file"),
        ("AWS_CONFIG_FILE", __file__, "is not an AWS file"),
    ],
)
def test_what_cannot_be_meant_is_said(env: dict[str, str], name: str, value: str, told: str):
    with pytest.raises(InvalidInput, match=told):
        S3Settings.of({**env, name: value})
