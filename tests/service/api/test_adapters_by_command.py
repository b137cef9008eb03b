"""`lorafleet adapters` and both clients against the real servicers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner

from lorafleet.cli import app
from tests.lorafleet.both_clients import KINDS, opened
from tests.service.api.served import Api
from tests.service.registry.made import finished, make_version, read_manifests


@pytest.fixture(autouse=True)
def environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", api.address)
    monkeypatch.setenv("LORAFLEET_TENANT", "acme")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest, api: Api) -> AsyncIterator[Any]:
    async with opened(request.param, api.address, tenant="acme") as client:
        yield client


async def run(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ("adapters", *arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


async def shown(*arguments: str) -> Any:
    return json.loads(await run(*arguments, "-o", "json"))


async def test_what_was_trained_is_listed_and_shown(api: Api):
    await finished(api.world, "fox", labels={"team": "red"})
    await read_manifests(api.world)
    assert [one["name"] for one in await shown("list", "--filter", "labels.team = red")] == ["tenants/acme/adapters/fox"]
    made = await shown("show", "fox/versions/1")
    assert (made["state"], made["base_digest"], len(made["files"])) == ("ADAPTER_VERSION_STATE_READY", "b" * 16, 2)
    assert (await shown("show", "fox"))["newest_version"] == 1
    assert [one["number"] for one in await shown("versions", "fox")] == [1]
    for narrow, told in (("list", "fox"), ("versions fox", "READY"), ("show fox/versions/1", "fox.safetensors"), ("show fox", "team=red")):
        text = await run(*narrow.split())
        assert told in text
        assert max(map(len, text.splitlines())) <= 80


async def test_both_clients_go_through_all_pages(api: Api, client: Any):
    for name in ("ant", "badger", "badger"):
        await make_version(api.world.tools.db, name)
    assert [one.name async for one in client.list_adapters(order_by="name", page_size=1)] == [
        "tenants/acme/adapters/ant",
        "tenants/acme/adapters/badger",
    ]
    assert [one.number async for one in client.list_adapter_versions("badger", page_size=1)] == [2, 1]
    assert (await client.get_adapter("badger")).newest_version == 2
    assert (await client.get_adapter_version("badger/versions/1")).number == 1
