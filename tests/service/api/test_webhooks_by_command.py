"""`lorafleet webhooks` and both clients against the real servicers, and an endpoint that listens."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner

from lorafleet.cli import app
from lorafleet.commands import ExitCode
from lorafleet.errors import AlreadyExists, NotFound
from lorafleet.v1 import webhook_service_pb2 as pb
from service.endpoints.addresses import parse_networks
from service.reconcile.webhooks import deliver_once
from tests.lorafleet.both_clients import KINDS, opened
from tests.service.api.served import Api
from tests.service.endpoints.receiver import receiver
from tests.service.registry.made import make_version


@pytest.fixture(autouse=True)
def environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", api.address)
    monkeypatch.setenv("LORAFLEET_TENANT", "acme")
    monkeypatch.setenv("COLUMNS", "80")
    api.world.tools.endpoints.allowed = parse_networks(["127.0.0.0/8"], "")


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest, api: Api) -> AsyncIterator[Any]:
    async with opened(request.param, api.address, tenant="acme") as client:
        yield client


async def run(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_an_endpoint_is_added_told_paused_and_resumed(api: Api):
    await make_version(api.world.tools.db, "fox")
    async with receiver() as there:
        secret = await run("webhooks", "create", "hook", f"http://127.0.0.1:{there.port}/", "--event", "alias.moved")
        assert secret.startswith("whsec_")
        await run("adapters", "promote", "fox/versions/1")
        while await deliver_once(api.world.tools):
            pass
        assert [one.json["type"] for one in there.got] == ["alias.moved"]
        there.status = 410
        await run("adapters", "promote", "fox/versions/1", "--alias", "candidate")
        while await deliver_once(api.world.tools):
            pass
        [shown] = json.loads(await run("webhooks", "list", "-o", "json"))
        assert (shown["state"], shown["message"], "secret" in shown) == ("WEBHOOK_STATE_PAUSED", "answered 410", False)
        for narrow in (await run("webhooks", "list"), await run("webhooks", "show", "hook")):
            assert "PAUSED" in narrow
            assert max(map(len, narrow.splitlines())) <= 80
        await run("webhooks", "resume", "hook")
        assert json.loads(await run("webhooks", "show", "hook", "-o", "json"))["state"] == "WEBHOOK_STATE_ACTIVE"
    await run("webhooks", "delete", "hook")
    assert json.loads(await run("webhooks", "list", "-o", "json")) == []
    bad = await asyncio.to_thread(CliRunner().invoke, app, ("webhooks", "create", "hook", "https://10.0.0.1/"))
    assert (bad.exit_code, "no public address" in " ".join(bad.output.split())) == (ExitCode.INVALID, True)


async def test_both_clients_look_after_webhooks(api: Api, client: Any):
    for name in ("one", "two"):
        await client.create_webhook(name, f"http://127.0.0.1:1/{name}")
    with pytest.raises(AlreadyExists):
        await client.create_webhook("one", "http://127.0.0.1:1/")
    assert [one.name async for one in client.list_webhooks(page_size=1)] == ["tenants/acme/webhooks/one", "tenants/acme/webhooks/two"]
    assert (await client.resume_webhook("one")).state == pb.WEBHOOK_STATE_ACTIVE
    await client.delete_webhook("one")
    with pytest.raises(NotFound):
        await client.get_webhook("one")
