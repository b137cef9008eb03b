"""A base in one file tells its family and its shapes by its header; what it is not is told before launch."""

from math import prod
from pathlib import Path

import pytest

from service.core.clock import FakeClock
from service.planning.base_shapes import ShapeCache, TenantBase
from service.store import spec_checks
from service.store.client import Store
from tests.service.planning.test_base_shapes import AT_ONCE_S, write_safetensors

UNET = "model.diffusion_model."
SD1 = {
    f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3],
    f"{UNET}input_blocks.0.0.bias": [320],
    f"{UNET}input_blocks.1.0.in_layers.2.weight": [8, 8, 3, 3],
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [320, 768],
    "first_stage_model.encoder.conv_in.weight": [128, 3, 3, 3],
    "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight": [768, 768],
}
OPEN_CLIP = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"


async def look(file: Path, *parts: tuple[str, str]) -> tuple[ShapeCache, TenantBase]:
    cache, base = ShapeCache(Store(), FakeClock()), TenantBase(f"file://{file}", "", None, parts)
    await cache.read([("acme", base)], AT_ONCE_S)
    return cache, base


async def test_its_header_tells_family_and_shapes(tmp_path: Path):
    write_safetensors(tmp_path / "sd15.safetensors", SD1)
    cache, base = await look(tmp_path / "sd15.safetensors")
    shapes = cache.known(base)
    assert (cache.family(base), cache.why_not(base)) == ("sd1", None)
    assert shapes is not None
    assert (shapes.width, shapes.latent_side, shapes.pixels_per_latent) == (320, 64, 8)
    assert shapes.layers["input_blocks.1.0.conv1"] == (8, 8, 3, 3), "as specs name it"
    assert shapes.layers["input_blocks.1.1.transformer_blocks.0.attn2.to_k"] == (320, 768)
    assert shapes.num_other_params == 128 * 27 + 768 * 768
    assert cache.known(TenantBase(base.uri, "", "sd1")) == shapes


async def test_one_matrix_of_three_is_three_layers(tmp_path: Path):
    write_safetensors(tmp_path / "xl.safetensors", {**SD1, f"{UNET}label_emb.0.0.weight": [4, 4], OPEN_CLIP: [3840, 1280]})
    cache, base = await look(tmp_path / "xl.safetensors")
    assert cache.family(base) == "sdxl"
    shapes = cache.known(base)
    assert shapes is not None
    assert [shapes.text_layers["text_encoder_2"][f"transformer.resblocks.0.self_attn.{each}_proj"] for each in "qkv"] == [(1280, 1280)] * 3


async def test_a_part_from_elsewhere_counts_instead_of_its_own(tmp_path: Path):
    write_safetensors(tmp_path / "sd15.safetensors", SD1)
    write_safetensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"a.weight": [10, 10]})
    cache, base = await look(tmp_path / "sd15.safetensors", ("vae", f"file://{tmp_path}/vae"))
    shapes = cache.known(base)
    assert shapes is not None
    assert shapes.num_other_params == 100 + 768 * 768


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({**SD1, f"{UNET}input_blocks.0.0.weight": [320, 9, 3, 3]}, "for inpainting"),
        ({"double_blocks.0.img_attn.qkv.weight": [4, 4]}, "is a FLUX, or the like"),
        ({"somebodys.word": [4, 4]}, "is of a layout that is not known"),
    ],
)
async def test_what_is_no_such_base_is_not_launched(tmp_path: Path, tensors: dict[str, list[int]], said: str):
    write_safetensors(tmp_path / "one.safetensors", tensors)
    cache, base = await look(tmp_path / "one.safetensors")
    why = cache.why_not(base)
    assert why is not None
    assert why.startswith(f"base_model.uri: {base.uri} ")
    assert said in why
    assert "somebodys" not in why


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, (2).to_bytes(8, "little") + b"[]"])
async def test_a_file_that_is_none_is_the_trainers_to_tell(tmp_path: Path, content: bytes):
    (tmp_path / "one.safetensors").write_bytes(content)
    cache, base = await look(tmp_path / "one.safetensors")
    assert cache.known(base) is None
    assert cache.family(base) is None


async def test_a_file_is_looked_for_when_a_job_names_it(tmp_path: Path):
    file = tmp_path / "one.safetensors"
    assert await spec_checks.base_model(Store(), f"file://{file}") == f"there is no file://{file}"
    write_safetensors(file, SD1)
    assert await spec_checks.base_model(Store(), f"file://{file}") is None


FLUX = {
    "img_in.weight": [32, 16],
    "txt_in.weight": [32, 24],
    "vector_in.in_layer.weight": [32, 8],
    "double_blocks.0.img_attn.qkv.weight": [96, 32],
    "double_blocks.0.img_attn.norm.query_norm.scale": [16],
    "single_blocks.0.linear1.weight": [224, 32],
    "final_layer.linear.weight": [16, 32],
}
BESIDE_FLUX = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


def parts_of(folder: Path, *names: str) -> list[tuple[str, str]]:
    return [(name, f"file://{folder}/{name}") for name in names]


@pytest.mark.parametrize("prefix", ["", "transformer.", "model.diffusion_model."])
async def test_a_transformers_layers_have_the_names_that_specs_give_them(tmp_path: Path, prefix: str):
    write_safetensors(tmp_path / "flux.safetensors", {f"{prefix}{name}": shape for name, shape in FLUX.items()})
    write_safetensors(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"a.weight": [10, 10]})
    write_safetensors(tmp_path / "text_encoder_2" / "model.safetensors", {"shared.weight": [100, 24]})
    cache, base = await look(tmp_path / "flux.safetensors", *parts_of(tmp_path, *BESIDE_FLUX))
    assert (cache.family(base), cache.why_not(base)) == ("flux", None)
    shapes = cache.known(base)
    assert shapes is not None
    assert (shapes.width, shapes.pixels_per_latent, shapes.latent_side) == (32, 8, None)
    assert shapes.layers["transformer_blocks.0.attn.to_k"] == (32, 32)
    assert shapes.layers["single_transformer_blocks.0.proj_mlp"] == (128, 32)
    assert shapes.num_params == sum(prod(shape) for shape in FLUX.values())
    assert (shapes.num_other_params, shapes.num_large_params) == (100, 2400), "T5 in what the run computes in"


async def test_what_a_file_lacks_is_told_before_launch(tmp_path: Path):
    write_safetensors(tmp_path / "flux.safetensors", FLUX)
    cache, base = await look(tmp_path / "flux.safetensors", *parts_of(tmp_path, "vae"))
    why = cache.why_not(base)
    assert why is not None
    assert [part for part in BESIDE_FLUX if f"base_model.parts.{part}\n" in f"{why}\n"] == ["text_encoder", "text_encoder_2", "tokenizer_2"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"img_in.weight": [32, 96]}, "takes 96 channels and gives 16, as FLUX.1 Fill"),
        ({"single_blocks.0.linear1.weight": [60, 32]}, "has a transformer of another size"),
        ({"single_blocks.0.linear1.weight": []}, "has a transformer of another size"),
        ({"single_blocks.0.linear9.weight": [4, 4]}, "has tensors that are none of its transformer"),
        ({"scaled_fp8": [2]}, "is quantised (scaled fp8)"),
    ],
)
async def test_a_transformer_that_is_none_to_train_is_not_launched(tmp_path: Path, more: dict[str, list[int]], said: str):
    write_safetensors(tmp_path / "flux.safetensors", {**FLUX, **more})
    cache, base = await look(tmp_path / "flux.safetensors", *parts_of(tmp_path, *BESIDE_FLUX))
    assert said in (cache.why_not(base) or "")
