"""`lorafleet tenant`, `member`, `token`, `grant`, `reservation` and `audit` against the real servicers."""

import asyncio
import json
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lorafleet.cli import app
from lorafleet.commands import ExitCode
from service.access import api_tokens
from tests.service.api.served import Api


@pytest.fixture(autouse=True)
def environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", api.address)
    monkeypatch.setenv("LORAFLEET_TENANT", "blue")
    monkeypatch.setenv("COLUMNS", "80")


async def run(*arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


async def shown(*arguments: str) -> Any:
    return json.loads(await run(*arguments, "-o", "json"))


async def test_a_tenant_is_set_up_and_changed_by_what_is_given_alone():
    made = await shown("tenant", "create", "blue", "--max-gpus", "4", "--weight", "2", "--isolated")
    assert (made["name"], made["max_gpus"], made["is_isolated"]) == ("tenants/blue", 4, True)
    changed = await shown("tenant", "update", "blue", "--max-queued-jobs", "0", "--no-limit", "max_gpus", "--etag", made["etag"])
    assert (changed["weight"], changed["max_queued_jobs"], changed["is_isolated"], "max_gpus" in changed) == (2, 0, True, False)
    assert [one["name"] for one in yaml.safe_load(await run("tenant", "list", "-o", "yaml"))] == ["tenants/blue"]
    for narrow in (await run("tenant", "get", "blue"), await run("tenant", "list")):
        assert "tenants/blue" in narrow
    bad = await asyncio.to_thread(CliRunner().invoke, app, ("tenant", "update", "blue", "--no-limit", "name"))
    assert (bad.exit_code, "update_mask" in bad.output) == (ExitCode.INVALID, True)


async def test_what_a_tenant_has_comes_and_goes():
    await run("tenant", "create", "blue")
    await run("member", "set", "oidc:ann", "operator")
    assert [one["role"] for one in await shown("member", "list")] == ["ROLE_OPERATOR"]
    await run("member", "remove", "oidc:ann")
    assert await shown("member", "list") == []

    token_id, _ = api_tokens.parts((await run("token", "create", "viewer", "--expires", "2999-01-01")).strip()) or ("", "")
    [token] = await shown("token", "list")
    assert (token["name"], token["expire_time"]) == (f"tenants/blue/tokens/{token_id}", "2999-01-01T00:00:00Z")
    assert "revoke_time" in await shown("token", "revoke", token_id)

    assert (await shown("grant", "add", "s3://blue-*", "--write"))["may_write"]
    await run("grant", "remove", "s3://blue-*")
    assert await shown("grant", "list") == []

    await run("reservation", "create", "night", "--gpus", "2", "--start", "2999-01-01", "--end", "2999-01-02")
    assert [one["gpus"] for one in await shown("reservation", "list")] == [2]
    await run("reservation", "delete", "night")
    assert await shown("reservation", "list") == []

    events = await shown("audit", "list", "--limit", "3")
    assert {one["code"] for one in events} == {"OK"}
    assert len(events) == 3
    assert await shown("audit", "list", "--until", "2000-01-01") == []
