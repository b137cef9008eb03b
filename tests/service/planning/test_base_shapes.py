"""A base's shapes come from the headers of its files; one that cannot be read is no reason to fail, nor to make others wait."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lorafleet.catalog import FAMILIES
from lorafleet.errors import LorafleetError
from service.control.memory import Ask, footprint
from service.core.clock import FakeClock
from service.planning import base_shapes
from service.planning.base_shapes import AWAITED_S, READ_AGAIN_S, ShapeCache, TenantBase, read_shapes
from service.store.client import Store
from service.untrusted.parsing import Parser

DEMO = Path(__file__).parents[3] / "examples" / "models" / "emoji-sd"
AT_ONCE_S = 30.0  # the test's own patience: what is read at all is read by then


def write_safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """The header alone: nobody reads further."""
    header = {"__metadata__": {"format": "pt"}, **{name: {"dtype": "F32", "shape": shape} for name, shape in shapes.items()}}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def write_base(folder: Path) -> str:
    """A base whose denoiser has 2 layers and 1,440 + 12 + 64 parameters."""
    shapes = {"conv_in.weight": [40, 4, 3, 3], "conv_in.bias": [12], "mid.attn1.to_q.weight": [8, 8]}
    write_safetensors(folder / "unet" / "diffusion_pytorch_model.safetensors", shapes)
    write_safetensors(folder / "vae" / "diffusion_pytorch_model.safetensors", {"a.weight": [3, 5]})
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "config.json").write_text('{"sample_size": 16}')
    (folder / "vae" / "config.json").write_text('{"block_out_channels": [1, 2, 4]}')
    return f"file://{folder}"


async def shapes_at(uri: str, family: str = "sd1"):
    return await read_shapes(Store(), uri, Parser(), FAMILIES.get(family))


def base_at(uri: str, family: str | None = "sd1") -> TenantBase:
    return TenantBase(uri, "", family)


async def known(cache: ShapeCache, *uris: str) -> list[bool]:
    """Whether they are, after a look."""
    await cache.read([("acme", base_at(uri)) for uri in uris], AT_ONCE_S)
    return [cache.known(base_at(uri)) is not None for uri in uris]


async def test_the_headers_tell_layers_and_sizes(tmp_path: Path):
    shapes = await shapes_at(write_base(tmp_path))
    assert shapes.layers == {"conv_in": (40, 4, 3, 3), "mid.attn1.to_q": (8, 8)}
    assert (shapes.num_params, shapes.num_other_params) == (1440 + 12 + 64, 15)
    assert (shapes.width, shapes.latent_side, shapes.pixels_per_latent) == (40, 16, 4)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.fp16", "model", "model.bf16"])
async def test_weights_under_another_usual_name_are_found(tmp_path: Path, name: str):
    uri = write_base(tmp_path)
    unet = tmp_path / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / f"{name}.safetensors")
    write_safetensors(unet / "other.safetensors", {"conv_in.weight": [1, 1, 1, 1]})
    assert (await shapes_at(uri)).width == 40
    write_safetensors(unet / "diffusion_pytorch_model.safetensors", {"conv_in.weight": [8, 4, 3, 3]})
    assert (await shapes_at(uri)).width == 8, "the trainer's first choice"


SHARDS = {
    "diffusion_pytorch_model-00001-of-00002.safetensors": {"conv_in.weight": [40, 4, 3, 3]},
    "diffusion_pytorch_model-00002-of-00002.safetensors": {"conv_in.bias": [12], "mid.attn1.to_q.weight": [8, 8]},
}
INDEX = "diffusion_pytorch_model.safetensors.index.json"


def shard_denoiser(base: Path, index: str = INDEX) -> None:
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    for name, shapes in SHARDS.items():
        write_safetensors(base / "unet" / name, shapes)
    where = {tensor: name for name, shapes in SHARDS.items() for tensor in shapes}
    (base / "unet" / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))


@pytest.mark.parametrize(
    "index", [INDEX, "diffusion_pytorch_model.safetensors.index.fp16.json", "diffusion_pytorch_model.bf16.safetensors.index.json"]
)
async def test_the_headers_of_shards_tell_what_one_file_would(tmp_path: Path, index: str):
    uri = write_base(tmp_path)
    whole = await shapes_at(uri)
    shard_denoiser(tmp_path, index)
    assert await shapes_at(uri) == whole


async def test_shards_of_another_part_count_too(tmp_path: Path):
    uri = write_base(tmp_path)
    write_safetensors(tmp_path / "text_encoder" / "model-00001-of-00001.safetensors", {"a.bias": [1000]})
    (tmp_path / "text_encoder" / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a.bias": "model-00001-of-00001.safetensors"}}'
    )
    assert (await shapes_at(uri)).num_other_params == 1015


async def test_the_layers_of_text_encoders_are_told_for_their_adapters(tmp_path: Path):
    uri = write_base(tmp_path)
    shapes = {"layers.0.q_proj.weight": [8, 8], "layers.0.q_proj.bias": [8]}
    write_safetensors(tmp_path / "text_encoder" / "model.safetensors", shapes)
    found = await shapes_at(uri)
    assert found.text_layers == {"text_encoder": {"layers.0.q_proj": (8, 8)}}
    assert found.num_other_params == 15 + 64 + 8


async def test_text_encoders_as_large_as_the_denoiser_are_counted_apart(tmp_path: Path):
    """They are held in what the run computes in, CLIP in single precision."""
    uri = write_base(tmp_path)
    write_safetensors(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors", {"x_embedder.weight": [40, 64]})
    (tmp_path / "transformer" / "config.json").write_text("{}")
    for part, width in (("text_encoder", 8), ("text_encoder_2", 16)):
        write_safetensors(tmp_path / part / "model.safetensors", {"layers.0.q_proj.weight": [width, width]})
    found = await shapes_at(uri, "flux")
    assert (found.num_params, found.num_other_params, found.num_large_params) == (40 * 64, 15 + 64, 256)


async def test_all_parts_of_the_family_count(tmp_path: Path):
    """As another family its second text encoder is no part of the base."""
    uri = write_base(tmp_path)
    for part, width in (("text_encoder", 8), ("text_encoder_2", 16)):
        write_safetensors(tmp_path / part / "model.safetensors", {"layers.0.q_proj.weight": [width, width]})
    as_sdxl, as_sd1 = await shapes_at(uri, "sdxl"), await shapes_at(uri, "sd1")
    assert as_sdxl.num_other_params == 15 + 64 + 256
    assert as_sdxl.text_layers["text_encoder_2"] == {"layers.0.q_proj": (16, 16)}
    assert as_sd1.num_other_params == 15 + 64
    cache = ShapeCache(Store(), FakeClock())
    await cache.read([("acme", base_at(uri, family)) for family in ("sd1", "sdxl")], AT_ONCE_S)
    assert cache.known(base_at(uri, "sd1")) == as_sd1
    assert cache.known(base_at(uri, "sdxl")) == as_sdxl


async def test_a_base_that_lacks_a_shard_is_unknown_as_one_that_lacks_a_file(tmp_path: Path):
    uri = write_base(tmp_path)
    shard_denoiser(tmp_path)
    (tmp_path / "unet" / next(iter(SHARDS))).unlink()
    with pytest.raises(LorafleetError, match="missing"):
        await shapes_at(uri)


BAD_INDICES = {
    "no JSON": "{",
    "a list": "[]",
    "no map": '{"weight_map": []}',
    "an empty one": '{"weight_map": {}}',
    "deep": "[" * 100_000,
    "long": " " * 38 * 2**20,
    "numbers": '{"weight_map": {"a": 1}}',
    "another folder": '{"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}',
    "many shards": json.dumps({"weight_map": {str(number): f"model-{number}.safetensors" for number in range(10_000)}}),
}


@pytest.mark.parametrize("text", BAD_INDICES.values(), ids=BAD_INDICES.keys())
async def test_a_bad_index_makes_a_base_unknown_and_nothing_else(tmp_path: Path, text: str):
    uri = write_base(tmp_path)
    shard_denoiser(tmp_path)
    (tmp_path / "unet" / INDEX).write_text(text)
    with pytest.raises(LorafleetError):
        await shapes_at(uri)
    assert await known(ShapeCache(Store(), FakeClock()), uri) == [False]


async def test_an_index_leads_to_no_other_folder(tmp_path: Path):
    uri = write_base(tmp_path)
    shard_denoiser(tmp_path)
    write_safetensors(tmp_path / "other.safetensors", {name: shape for shapes in SHARDS.values() for name, shape in shapes.items()})
    (tmp_path / "unet" / INDEX).write_text(json.dumps({"weight_map": {"conv_in.weight": "../other.safetensors"}}))
    with pytest.raises(LorafleetError, match="missing"):
        await shapes_at(uri)


async def test_headers_of_shards_are_no_longer_together_than_one_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    uri = write_base(tmp_path)
    shard_denoiser(tmp_path)
    sizes = [(tmp_path / "unet" / name).stat().st_size - 8 for name in SHARDS]
    monkeypatch.setattr(base_shapes, "MAX_HEADER_BYTES", sum(sizes) - 1)
    with pytest.raises(LorafleetError, match="missing"):
        await shapes_at(uri)
    monkeypatch.setattr(base_shapes, "MAX_HEADER_BYTES", sum(sizes))
    assert (await shapes_at(uri)).width == 40


@pytest.mark.parametrize(("said", "side"), [("[16, 24]", 24), ("null", None)])
async def test_a_base_may_be_oblong_or_not_say_its_size(tmp_path: Path, said: str, side: int | None):
    uri = write_base(tmp_path)
    (tmp_path / "unet" / "config.json").write_text(f'{{"sample_size": {said}}}')
    shapes = await shapes_at(uri)
    assert shapes.latent_side == side
    ask = Ask(family="sd1", precision="fp32", method="lora", rank=4, target_modules=("to_q",), resolution=None, micro_batch_size=1)
    assert (footprint(shapes, ask) is None) == (side is None), "of no size nothing can be told"


async def test_a_base_that_cannot_be_read_is_unknown_and_asked_for_again_later(tmp_path: Path):
    clock = FakeClock()
    cache = ShapeCache(Store(), clock)
    uri = f"file://{tmp_path}"
    assert await known(cache, uri) == [False]

    write_base(tmp_path)
    assert await known(cache, uri) == [False], "not with every step of a loop"
    clock.advance(READ_AGAIN_S)
    assert await known(cache, uri) == [True]


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_neither_delays_nor_hastens_the_next_reading(tmp_path: Path, step_s: float):
    clock = FakeClock()
    cache = ShapeCache(Store(), clock)
    uri = f"file://{tmp_path}"
    assert await known(cache, uri) == [False]
    write_base(tmp_path)
    clock.step(step_s)
    assert await known(cache, uri) == [False]
    clock.advance(READ_AGAIN_S)
    assert await known(cache, uri) == [True]


BIG = 10**400
BAD = {
    "a list": ("unet/config.json", b"[]"),
    "no JSON": ("unet/config.json", b"{"),
    "no side": ("unet/config.json", b'{"sample_size": Infinity}'),
    "a negative side": ("unet/config.json", b'{"sample_size": -64}'),
    "a truth for a side": ("unet/config.json", b'{"sample_size": true}'),
    "deep lists": ("unet/config.json", b"[" * 100_000),
    "deep objects": ("vae/config.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a large config": ("vae/config.json", b" " * 38 * 2**20),
    "blocks without end": ("vae/config.json", json.dumps({"block_out_channels": [1] * 5000}).encode()),
    "no file of that kind": ("unet/diffusion_pytorch_model.safetensors", b"x" * 50),
}
BAD_SHAPES = {
    "a scalar": {"conv_in.weight": []},
    "words": {"conv_in.weight": [4, 4, 3, 3], "to_q.weight": ["a", "b"]},
    "fractions": {"conv_in.weight": [4, 4, 3, 3], "to_q.weight": [4.5, 2]},
    "a number": {"conv_in.weight": 7},
    "huge numbers": {"conv_in.weight": [BIG, 4, 3, 3]},
    "a huge product": {"conv_in.weight": [4, 4, 3, 3], "to_q.weight": [2**39, 2**39]},
    "negative numbers": {"conv_in.weight": [4, 4, 3, 3], "to_q.weight": [-(10**9), 4]},
    "many tensors": {"conv_in.weight": [4, 4, 3, 3], **{f"{number}.bias": [1] for number in range(20_001)}},
    "a long name": {"conv_in.weight": [4, 4, 3, 3], f"{'x' * 10_000}.weight": [1, 1]},
}


@pytest.mark.parametrize(("name", "text"), BAD.values(), ids=BAD.keys())
async def test_a_damaged_file_makes_a_base_unknown_and_nothing_else(tmp_path: Path, name: str, text: bytes):
    uri = write_base(tmp_path)
    (tmp_path / name).write_bytes(text)
    with pytest.raises(LorafleetError):
        await shapes_at(uri)
    assert await known(ShapeCache(Store(), FakeClock()), uri) == [False]


@pytest.mark.parametrize("shapes", BAD_SHAPES.values(), ids=BAD_SHAPES.keys())
async def test_shapes_that_no_weights_have_make_a_base_unknown(tmp_path: Path, shapes: dict):
    uri = write_base(tmp_path)
    write_safetensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", shapes)
    with pytest.raises(LorafleetError):
        await shapes_at(uri)


async def test_what_is_known_is_not_read_again(tmp_path: Path):
    cache = ShapeCache(Store(), FakeClock())
    uri = write_base(tmp_path)
    assert await known(cache, uri) == [True]
    (tmp_path / "unet" / "config.json").unlink()
    assert await known(cache, uri) == [True]


@contextmanager
def standing_still() -> Iterator[Parser]:
    """A parser whose children for the first tenant stand still until the end of the block."""
    gate = asyncio.Event()

    class Still(Parser):
        async def parse(self, kind, files):
            if b"STILL" in b"".join(files):
                await gate.wait()
            return await super().parse(kind, files)

    try:
        yield Still()
    finally:
        gate.set()


def write_still(folder: Path) -> str:
    uri = write_base(folder)
    (folder / "unet" / "config.json").write_text('{"sample_size": 16, "kind": "STILL"}')
    return uri


@pytest.mark.timeout(60)
async def test_a_slow_base_holds_up_neither_its_asker_nor_other_tenants(tmp_path: Path):
    clock, rings = FakeClock(), []
    slow = [write_still(tmp_path / f"slow-{number}") for number in range(8)]
    good = write_base(tmp_path / "good")
    with standing_still() as parser:
        cache = ShapeCache(Store(), clock, parser, ring=lambda: rings.append(1))
        await cache.read([("evil", base_at(uri)) for uri in slow], 0.01)
        assert all(map(cache.is_awaited, map(base_at, slow)))
        assert await known(cache, good) == [True], "eight readings of one tenant take one place"
        clock.advance(AWAITED_S)
        assert not any(map(cache.is_awaited, map(base_at, slow))), "its jobs go on without"
    tasks = [reading.task for reading in cache._reading.values()]
    await asyncio.wait(tasks, timeout=AT_ONCE_S)
    assert all(cache.known(base_at(uri)) for uri in slow)
    assert rings, "whoever went on without looks again"


async def test_a_parser_that_works_for_too_long_is_ended_and_leaves_no_process(tmp_path: Path):
    uri = write_base(tmp_path)
    cache = ShapeCache(Store(), FakeClock(), Parser(within_s=0.0))
    assert await known(cache, uri) == [False]
    assert not _children()


async def test_closing_ends_what_is_being_read(tmp_path: Path):
    with standing_still() as parser:
        cache = ShapeCache(Store(), FakeClock(), parser)
        await cache.read([("acme", base_at(write_still(tmp_path)))], 0.01)
        await cache.close()
        assert not cache._reading


def _children() -> list[int]:
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in found if b"child.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_a_part_from_elsewhere_counts_instead_of_the_bases_own(tmp_path: Path):
    uri = write_base(tmp_path / "base")
    write_safetensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"a.weight": [100, 5]})
    (tmp_path / "vae" / "config.json").write_text('{"block_out_channels": [1, 2, 4, 8]}')
    own, others = TenantBase(uri, "", "sd1"), TenantBase(uri, "", "sd1", (("vae", f"file://{tmp_path}/vae"),))
    cache = ShapeCache(Store(), FakeClock())
    await cache.read([("acme", own), ("acme", others)], AT_ONCE_S)
    shapes = [cache.known(base) for base in (own, others)]
    assert [(each.num_other_params, each.pixels_per_latent) for each in shapes if each] == [(15, 4), (500, 8)]
