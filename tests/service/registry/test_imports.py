"""A file that was made elsewhere becomes a version: copied, checked to the last number, digested; or it is said what is wrong with it."""

import hashlib
import json
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest

from lorafleet.errors import FailedPrecondition, InvalidInput, InvalidSpec, NotFound, QuotaExceeded, Unavailable
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.identity import Identity, Role, current_identity
from service.core.resource_names import AdapterName, parse_alias
from service.reconcile.imports import import_once
from service.registry.aliases import AliasMove, set_alias
from service.registry.deletion import delete_version
from service.registry.imports import Imports, NewImport
from tests.service.access.members import make_grant, make_tenant
from tests.service.registry.files import kohya_file, kohya_tensors, peft_tensors, safetensors
from tests.service.registry.made import adapter, make_version, version
from tests.service.registry.test_deletion import DAY_S, number, run_loops
from tests.service.world import World

ANN = Identity(principal="ann", tenant="acme", role=Role.SUBMITTER)


def imports(world: World) -> Imports:
    return Imports(db=world.tools.db, store=world.tools.store, parser=world.tools.parser, artifacts_uri=world.tools.locations.artifacts_uri)


async def brought(world: World, data: bytes, name: str = "theirs.safetensors", **fields: Any) -> pb.AdapterVersion:
    """The answer to the call."""
    (world.folder / name).write_bytes(data)
    new = NewImport(name=AdapterName("acme", "fox"), **{"uri": f"file://{world.folder}/{name}", **fields})
    return await imports(world).start(new, ANN)


async def copy(world: World) -> None:
    while await import_once(world.tools):
        pass


async def refused(world: World, data: bytes, **fields: Any) -> str:
    with pytest.raises(InvalidInput) as error:
        await brought(world, data, **fields)
    return error.value.message


async def damaged(world: World) -> tuple[str, str]:
    await copy(world)
    made = await version(world, "fox/versions/1")
    assert made.state == pb.ADAPTER_VERSION_STATE_DAMAGED
    assert not (world.folder / "artifacts").exists(), "nothing of it is kept"
    return made.reason, made.message


async def test_a_file_is_copied_and_is_a_version_like_any_other(world: World):
    data = kohya_file(8)
    first = await brought(world, data, labels={"team": "red"}, trigger="sks fox", sha256=hashlib.sha256(data).hexdigest())
    assert (first.state, first.number, first.artifact.size_bytes) == (pb.ADAPTER_VERSION_STATE_PENDING, 1, len(data))
    await copy(world)
    made = await version(world, "fox/versions/1")
    assert (made.state, made.family, made.method, made.rank, made.trigger) == (pb.ADAPTER_VERSION_STATE_READY, "sd1", "lora", 8, "sks fox")
    assert (made.job, made.source_uri, dict(made.labels)) == ("", f"file://{world.folder}/theirs.safetensors", {"team": "red"})
    assert [(file.path, file.sha256) for file in made.files] == [("theirs.safetensors", hashlib.sha256(data).hexdigest())]
    folder = Path(made.artifact.uri.removeprefix("file://"))
    assert (folder / "theirs.safetensors").read_bytes() == data
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == made.artifact.manifest_sha256
    assert (await adapter(world, "fox")).family == "sd1"


async def test_an_import_says_what_it_was_made_of(world: World):
    for name in ("fox", "wolf"):
        await make_version(world.tools.db, name)
    await set_alias(world.tools.db, AliasMove(name=parse_alias("tenants/acme/adapters/wolf@candidate"), number=1), ANN)
    parents = ["tenants/acme/adapters/wolf@candidate", "tenants/acme/adapters/fox/versions/1"]
    await brought(world, kohya_file(), parents=parents)
    made = await version(world, "fox/versions/2")
    assert list(made.parents) == ["tenants/acme/adapters/wolf/versions/1", "tenants/acme/adapters/fox/versions/1"]
    assert {each.digest for each in made.made_of} == {"ab" * 32}
    with pytest.raises(NotFound, match=r"parents: there is no tenants/blue/adapters/fox/versions/1 of tenants/acme"):
        await brought(world, kohya_file(), parents=["tenants/blue/adapters/fox/versions/1"])
    assert "is not a version" in await refused(world, kohya_file(), parents=["fox"])


async def test_pefts_folder_is_taken_with_its_config(world: World):
    folder = world.folder / "peft"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "peft_type": "LORA"}))
    await brought(world, safetensors(peft_tensors()), "peft/adapter_model.safetensors", uri=f"file://{folder}/")
    await copy(world)
    made = await version(world, "fox/versions/1")
    assert (made.state, {file.path for file in made.files}) == (
        pb.ADAPTER_VERSION_STATE_READY,
        {"adapter_config.json", "adapter_model.safetensors"},
    )


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "no safetensors file"),
        (kohya_file()[:60], "its header is not whole"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (safetensors({**kohya_tensors(), "model.weight": [3]}), "model.weight: no name of an adapter's tensors"),
        (safetensors({"lora_unet_x.lora_down.weight": [4, 4], "lora_unet_x.lora_up.weight": [4, 4]}), "no known family"),
        (safetensors(kohya_tensors(0)), "rank 0"),
        (safetensors({name: shape for name, shape in kohya_tensors().items() if "up" not in name}), "half an adapter"),
        (safetensors(kohya_tensors(), "I8"), "none of F32, F16, BF16"),
    ],
)
async def test_what_is_no_adapter_is_refused_at_once(world: World, data: bytes, told: str):
    assert told in await refused(world, data)


async def test_words_of_a_request_are_checked_all_at_once(world: World):
    with pytest.raises(InvalidInput) as error:
        await brought(world, kohya_file(), uri="http://x", labels={"Bad Key": "x"}, sha256="short", family="sd9")
    assert {violation.field.split(".")[0] for violation in error.value.violations} == {"uri", "labels", "sha256", "family"}
    assert "there is no" in await refused(world, kohya_file(), uri=f"file://{world.folder}/other.safetensors")
    assert "no adapter of flux" in await refused(world, kohya_file(), family="flux")


async def test_a_number_that_is_not_finite_makes_a_damaged_version(world: World):
    data = bytearray(kohya_file())
    data[-100:-98] = b"\x00\x7e"  # NaN in half precision
    await brought(world, bytes(data))
    reason, message = await damaged(world)
    assert (reason, "lora_up.weight has numbers that are not finite" in message) == ("NOT_FINITE", True)


async def test_half_a_file_and_another_file_make_damaged_versions(world: World):
    await brought(world, kohya_file()[:-1])
    assert "cut short" in (await damaged(world))[1]


async def test_a_file_of_another_digest_is_not_taken(world: World):
    await brought(world, kohya_file(), sha256="ab" * 32)
    assert (await damaged(world))[0] == "DIGEST_MISMATCH"


async def test_a_file_that_changes_into_something_else_is_not_taken(world: World):
    await brought(world, kohya_file())
    (world.folder / "theirs.safetensors").write_bytes(safetensors({"a": [1]}))
    assert (await damaged(world))[0] == "UNKNOWN_KEYS"


async def test_while_the_store_is_away_it_stays_pending(world: World, monkeypatch: pytest.MonkeyPatch):
    await brought(world, kohya_file())

    async def away(*_: object, **__: object) -> bytes:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr("service.store.client.Store.put", away)
        await copy(world)
    assert (await version(world, "fox/versions/1")).state == pb.ADAPTER_VERSION_STATE_PENDING
    world.clock.advance(60)
    await copy(world)
    assert (await version(world, "fox/versions/1")).state == pb.ADAPTER_VERSION_STATE_READY


async def test_a_repeated_request_is_answered_with_the_first_version(world: World):
    request_id = str(uuid.uuid4())
    first = await brought(world, kohya_file(), request_id=request_id)
    assert await brought(world, kohya_file(), request_id=request_id) == first
    assert (await brought(world, kohya_file(), request_id=str(uuid.uuid4()))).number == 2
    with pytest.raises(InvalidInput, match="request_id"):
        await brought(world, kohya_file(), name="other.safetensors", request_id=request_id)


async def test_only_what_the_tenant_may_read_is_taken(world: World):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", "s3://acme")
    with pytest.raises(InvalidSpec, match="not granted"):
        await brought(world, kohya_file())
    token = current_identity.set(ANN)
    try:
        own = world.folder / "artifacts" / "tenants" / "acme"
        own.mkdir(parents=True)
        (own / "x.safetensors").write_bytes(kohya_file())
        await brought(world, b"", uri=f"file://{own}/x.safetensors")
    finally:
        current_identity.reset(token)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_version_gets_no_alias_before_it_is_copied_and_its_copy_goes_with_it(world: World):
    await brought(world, kohya_file())
    move = AliasMove(name=parse_alias("tenants/acme/adapters/fox@production"), number=1)
    with pytest.raises(FailedPrecondition) as error:
        await set_alias(world.tools.db, move, ANN)
    assert error.value.reason == "ADAPTER_VERSION_PENDING"
    await copy(world)
    folder = Path((await version(world, "fox/versions/1")).artifact.uri.removeprefix("file://"))
    await delete_version(world.tools.db, number(1), ANN)
    world.clock.advance(31 * DAY_S)
    await run_loops(world)
    assert files_in(folder) == []
    assert (world.folder / "theirs.safetensors").exists(), "the source is its owner's"


async def test_a_tenant_whose_storage_is_used_up_imports_nothing(world: World):
    await make_tenant(world.tools.db, "acme", max_storage_bytes=10)
    await brought(world, kohya_file())
    with pytest.raises(QuotaExceeded):
        await brought(world, kohya_file())
