"""`lorafleet adapters` and both clients against the real servicers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from lorafleet.cli import app
from lorafleet.commands import ExitCode
from service.access.identity import Identity, Role
from service.db.models import AuditRow
from service.reconcile.imports import import_once
from tests.lorafleet.both_clients import KINDS, opened
from tests.service.access.members import make_member
from tests.service.api.served import Api
from tests.service.registry.files import kohya_file
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


async def test_promoting_and_rolling_back_is_one_command_each_and_is_audited(api: Api):
    for _ in range(2):
        await make_version(api.world.tools.db, "fox")
    assert "production is versions/1" in await run("promote", "fox/versions/1")
    await run("promote", "fox/versions/2", "--alias", "candidate")
    assert "is versions/2, before it versions/1" in await run("promote", "fox@candidate", "--expected", "1")
    assert (await shown("show", "fox@production"))["number"] == 2
    assert "candidate=2" in await run("list")
    late = await asyncio.to_thread(CliRunner().invoke, app, ("adapters", "promote", "fox/versions/1", "--expected", "1"))
    assert (late.exit_code, "points to versions/2 now" in late.output) == (ExitCode.ERROR, True)
    await run("delete", "fox@candidate")
    async with api.world.tools.db.snapshot() as tx:
        rows = [(row.code, row.resource) for row in await tx.session.scalars(select(AuditRow))]
    fox = "tenants/acme/adapters/fox"
    assert sorted(rows) == [
        ("ABORTED", f"{fox}@production"),
        ("OK", f"{fox}@candidate (was versions/2)"),
        ("OK", f"{fox}@candidate = versions/2"),
        ("OK", f"{fox}@production = versions/1"),
        ("OK", f"{fox}@production = versions/2 (was versions/1)"),
    ]


async def test_production_is_moved_by_operators_other_aliases_by_submitters(api: Api):
    await make_version(api.world.tools.db, "fox")
    await make_member(api.world.tools.db, "acme", "bob", Role.SUBMITTER)
    api.caller.identity = Identity(principal="bob")
    await run("promote", "fox/versions/1", "--alias", "candidate")
    for command in (("promote", "fox@candidate"), ("delete", "fox@production")):
        refused = await asyncio.to_thread(CliRunner().invoke, app, ("adapters", *command))
        assert "this needs at least operator" in refused.output
    await run("delete", "fox@candidate")


async def test_what_is_deleted_comes_back_and_what_is_kept_is_said(api: Api, tmp_path: Path):
    await finished(api.world, "fox")
    await finished(api.world, "next", output={"adapter": "fox"})
    await read_manifests(api.world)
    assert "can be undeleted" in await run("delete", "fox/versions/1")
    assert [one["number"] for one in await shown("versions", "fox")] == [2]
    assert "DELETED" in await run("versions", "fox", "--deleted")
    await run("undelete", "fox/versions/1")
    await run("delete", "fox")
    assert (await shown("list"), [one["name"] for one in await shown("list", "--deleted")]) == ([], ["tenants/acme/adapters/fox"])
    await run("undelete", "fox")
    assert "2 newest, younger than 30 days" in await run("keep", "fox", "--newest", "2", "--days", "30")
    await run("promote", "fox/versions/2")
    in_use = await asyncio.to_thread(CliRunner().invoke, app, ("adapters", "delete", "fox"))
    assert (in_use.exit_code, "production stands for" in in_use.output) == (ExitCode.ERROR, True)
    assert "2 files" in await run("download", "fox@production", str(tmp_path / "fox"))
    assert (tmp_path / "fox" / "fox.safetensors").read_bytes() == b"weights"


async def test_a_file_that_was_made_elsewhere_is_imported(api: Api, tmp_path: Path):
    file = tmp_path / "theirs.safetensors"
    file.write_bytes(kohya_file())
    text = await run("import", "theirs", f"file://{file}", "--trigger", "sks", "--label", "team=red")
    assert "PENDING" in text
    waiting = await asyncio.to_thread(CliRunner().invoke, app, ("adapters", "download", "theirs/versions/1", str(tmp_path / "early")))
    assert (waiting.exit_code, "not copied yet" in waiting.output) == (ExitCode.ERROR, True)
    while await import_once(api.world.tools):
        pass
    await run("promote", "theirs/versions/1")
    await run("download", "theirs@production", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "theirs.safetensors").read_bytes() == file.read_bytes()
    file.write_bytes(b"no adapter")
    bad = await asyncio.to_thread(CliRunner().invoke, app, ("adapters", "import", "theirs", f"file://{file}"))
    assert (bad.exit_code, "no safetensors file" in " ".join(bad.output.split())) == (ExitCode.INVALID, True)


async def test_both_clients_go_through_all_pages(api: Api, client: Any):
    for name in ("ant", "badger", "badger"):
        await make_version(api.world.tools.db, name)
    assert [one.name async for one in client.list_adapters(order_by="name", page_size=1)] == [
        "tenants/acme/adapters/ant",
        "tenants/acme/adapters/badger",
    ]
    assert [one.number async for one in client.list_adapter_versions("badger", page_size=1)] == [2, 1]
    assert (await client.get_adapter("badger")).newest_version == 2
    async with aclosing(client.watch_adapters("badger")) as events:
        first = await anext(events)
    assert (first.snapshot, first.adapter.name) == (True, "tenants/acme/adapters/badger")
    assert (await client.get_adapter_version("badger/versions/1")).number == 1
