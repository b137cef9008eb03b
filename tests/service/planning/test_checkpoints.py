"""A base in one file tells its family and its shapes by its header; what it is not is told before launch."""

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
        ({"double_blocks.0.img_attn.qkv.weight": [4, 4]}, "is FLUX"),
        ({"somebodys.word": [4, 4]}, "is a layout that is not known"),
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
