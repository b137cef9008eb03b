"""A base in one file tells its family and its shapes by its header; what it is not is told before launch."""

from math import prod
from pathlib import Path

import pytest

from lorafleet.catalog import FAMILIES
from service.control.memory import Ask, footprint
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
    ask = Ask(family="flux", precision="bf16", method="lora", rank=4, target_modules=("to_k",), resolution=512, micro_batch_size=1)
    taken = footprint(shapes, ask)
    assert taken is not None
    assert taken.num_adapter_params == 2 * 4 * (32 + 32), "of both blocks"


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


DOUBLE = "double_blocks.0.img_attn.qkv.weight"
ENDS = {"img_in.weight": [32, 16], "final_layer.linear.weight": [16, 32], DOUBLE: [96, 32]}
FLUX2 = {**ENDS, "double_stream_modulation_img.lin.weight": [192, 32], "single_blocks.0.linear1.weight": [288, 32]}
ZIMAGE = {
    "x_embedder.weight": [48, 16],
    "cap_pad_token": [1, 48],
    "noise_refiner.0.attention.qkv.weight": [144, 48],
    "layers.0.attention.qkv.weight": [144, 48],
}
QWEN = {
    "img_in.weight": [32, 16],
    "txt_norm.weight": [24],
    **{f"transformer_blocks.0.{name}.weight": [32, 32] for name in ("attn.add_q_proj", "attn.to_k", "img_mod.1")},
}
SD3 = {
    "x_embedder.proj.weight": [32, 4, 2, 2],
    "pos_embed": [1, 144, 32],
    "joint_blocks.0.x_block.attn.qkv.weight": [96, 32],
    "joint_blocks.0.context_block.attn.qkv.weight": [96, 32],
}
TRANSFORMERS = {
    "flux2": (FLUX2, "single_transformer_blocks.0.attn.to_qkv_mlp_proj", (288, 32)),
    "chroma": ({**ENDS, "distilled_guidance_layer.in_proj.weight": [32, 8]}, "transformer_blocks.0.attn.to_v", (32, 32)),
    "sd3": (SD3, "transformer_blocks.0.attn.add_v_proj", (32, 32)),
    "zimage": (ZIMAGE, "noise_refiner.0.attention.to_q", (48, 48)),
    "qwen_image": (QWEN, "transformer_blocks.0.attn.to_k", (32, 32)),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
async def test_each_family_is_told_by_its_tensors_alone(tmp_path: Path, name: str):
    tensors, layer, shape = TRANSFORMERS[name]
    write_safetensors(tmp_path / "one.safetensors", tensors)
    parts = [part.name for part in FAMILIES.get(name).parts if part.name != "transformer"]
    cache, base = await look(tmp_path / "one.safetensors", *parts_of(tmp_path, *parts))
    shapes = cache.known(base)
    assert (cache.family(base), cache.why_not(base)) == (name, None)
    assert shapes is not None
    assert (shapes.layers[layer], shapes.width, shapes.pixels_per_latent) == (shape, 48 if name == "zimage" else 32, 8)
    assert shapes.num_params == sum(map(prod, tensors.values()))


@pytest.mark.parametrize(("name", "said"), [("chroma", "how its times are shifted"), ("zimage", "Z-Image and Turbo differ")])
async def test_a_schedule_that_tensors_do_not_tell_is_asked_for(tmp_path: Path, name: str, said: str):
    write_safetensors(tmp_path / "one.safetensors", TRANSFORMERS[name][0])
    cache, base = await look(tmp_path / "one.safetensors")
    why = cache.why_not(base) or ""
    assert said in why
    assert "name a scheduler's folder in base_model.parts.scheduler" in why


async def test_t5_of_stable_diffusion_3_may_be_left_out_but_not_in_half(tmp_path: Path):
    write_safetensors(tmp_path / "one.safetensors", SD3)
    needed = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    cache, base = await look(tmp_path / "one.safetensors", *parts_of(tmp_path, *needed))
    assert cache.why_not(base) is None
    cache, base = await look(tmp_path / "one.safetensors", *parts_of(tmp_path, *needed, "text_encoder_3"))
    assert "lacks tokenizer_3; name its folder in base_model.parts.tokenizer_3" in (cache.why_not(base) or "")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({**FLUX2, "guidance_in.in_layer.weight": [32, 256]}, "as FLUX.2 dev"),
        ({**QWEN, "__index_timestep_zero__": [0]}, "is Qwen-Image-Edit"),
        ({**QWEN, "time_text_embed.addition_t_embedding.weight": [2, 32]}, "is Qwen-Image-Layered"),
        ({**ZIMAGE, "siglip_embedder.0.weight": [32]}, "sees other pictures (siglip)"),
        ({**ENDS, "nerf_blocks.0.weight": [4, 4]}, "is Chroma1-Radiance, which draws pixels"),
        ({"noise_refiner.0.attention.qkv.weight": [144, 48]}, "is a Z-Image or Lumina"),
        ({"transformer_blocks.0.attn.to_q.weight": [4, 4]}, "by diffusers' names, which belongs in a folder with its config"),
        ({DOUBLE: [96, 32]}, "flux has double_blocks.0.img_attn.qkv.weight, vector_in.in_layer.weight, img_in.weight"),
    ],
)
async def test_a_neighbour_that_is_not_trained_is_told_by_name(tmp_path: Path, tensors: dict[str, list[int]], said: str):
    write_safetensors(tmp_path / "one.safetensors", tensors)
    cache, base = await look(tmp_path / "one.safetensors")
    assert said in (cache.why_not(base) or "")


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.gguf", "whose weights are quantised"), ("a.ckpt", "nothing is unpickled"), ("a.sft", "rename it to end in .safetensors")],
)
async def test_a_file_of_another_kind_is_told_what_it_is(tmp_path: Path, name: str, said: str):
    (tmp_path / name).write_bytes(b"x")
    assert said in (await spec_checks.base_model(Store(), f"file://{tmp_path}/{name}") or "")
