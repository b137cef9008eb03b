"""`lorafleet generations` and both clients against the real servicers."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lorafleet.cli import app
from lorafleet.commands import ExitCode
from lorafleet.errors import FailedPrecondition, NotFound
from lorafleet.v1 import training_service_pb2 as jobs_pb
from lorafleet.work.generation import parse
from tests.lorafleet.both_clients import KINDS, opened
from tests.service.api.served import Api
from tests.service.registry.made import manifest
from tests.service.world import progress, succeeded

PICTURES = {"base-1-0123.png": b"png", "sheet.png": b"sheet", "generation.json": b"{}"}


@pytest.fixture(autouse=True)
def environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFLEET_SERVER", api.address)
    monkeypatch.setenv("LORAFLEET_TENANT", "acme")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest, api: Api) -> AsyncIterator[Any]:
    async with opened(request.param, api.address, tenant="acme") as client:
        yield client


async def run(*arguments: str, code: int = 0) -> Any:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["generations", *arguments])
    assert result.exit_code == code, result.output
    return result


def request_file(api: Api, **fields: Any) -> str:
    file = api.world.folder / "foxes.yaml"
    file.write_text(yaml.safe_dump({"base_model": {"uri": f"file://{api.world.folder}/base"}, "prompts": ["a fox"], **fields}))
    return str(file)


async def drawn(api: Api, name: str) -> None:
    """What its run does from the first picture to the end."""
    await api.world.settle()
    run_id = api.world.backend.launches[-1]
    await api.world.report(run_id, progress(1, "drawing", file="base-1-0123.png"))
    folder = api.world.folder / "artifacts" / name / "pictures"
    folder.mkdir(parents=True)
    for path, data in PICTURES.items():
        (folder / path).write_bytes(data)
    (folder / "manifest.json").write_bytes(manifest(PICTURES))
    done = succeeded(folder.as_uri())
    done.ended.artifact.manifest_sha256 = hashlib.sha256(manifest(PICTURES)).hexdigest()
    await api.world.report(run_id, done)


async def test_from_a_file_to_pictures_in_a_folder(api: Api):
    made = await run("create", request_file(api), "--id", "foxes", "--set", "seeds=[1]", "-o", "json")
    assert "accepted as tenants/acme/generations/foxes" in made.stderr
    name = json.loads(made.stdout)["name"]
    assert "foxes" in (await run("list")).stdout
    await drawn(api, name)
    watched = await run("watch", "foxes")
    assert "foxes SUCCEEDED, 1 of 1 pictures, base-1-0123.png" in watched.stderr
    folder = api.world.folder / "pictures-of-foxes"
    await run("download", "foxes", str(folder))
    assert {path.name for path in folder.iterdir()} >= set(PICTURES)
    assert "1 of 1" in (await run("get", "foxes")).stdout


async def test_a_dry_run_draws_nothing_and_tells_how_much_it_would(api: Api):
    dry = await run("create", request_file(api, seeds=[1, 2]), "--dry-run")
    assert "x 1 prompts x 2 seeds = 2 pictures" in dry.stderr
    assert json.loads((await run("list", "-o", "json")).stdout) == []


async def test_what_is_wrong_in_the_file_is_told_before_any_server_is_asked(api: Api):
    wrong = await run("create", request_file(api, prompts=[], scheduler="none"), "--set", "nothing", code=ExitCode.INVALID)
    assert all(field in wrong.output for field in ("prompts", "scheduler", "nothing"))


async def test_a_cancelled_one_says_so_by_its_exit_code(api: Api):
    await run("create", request_file(api), "--id", "foxes")
    assert "CANCELLED" in (await run("cancel", "foxes")).stdout
    await run("watch", "foxes", code=ExitCode.JOB_CANCELLED)


async def test_the_clients_ask_watch_and_cancel(client: Any, api: Api):
    spec = parse({"base_model": {"uri": f"file://{api.world.folder}/base"}, "prompts": ["a fox"], "labels": {"team": "red"}})
    made = await client.create_generation(spec, generation_id="foxes")
    assert (await client.get_generation("foxes")).uid == made.uid
    assert [each.name async for each in client.list_generations(filter='labels.team = "red"')] == [made.name]
    with pytest.raises(FailedPrecondition, match="QUEUED and has no pictures"):
        await client.download_generation("foxes", api.world.folder / "none")
    await client.cancel_generation("foxes")
    seen = [each.state async for each in client.watch_generations("foxes")]
    assert seen[-1] == jobs_pb.JOB_STATE_CANCELLED
    with pytest.raises(NotFound):
        await client.get_generation("none")
