"""Adapters go from one format to another and back to the last bit, where that can hold them; what cannot be held is said."""

import json
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tests.trainer.adapters.files import made
from trainer.adapters.files.contents import FORMATS, AdapterFile, Module
from trainer.adapters.files.fused import NotHeld
from trainer.adapters.files.writing import write

QKV = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
LINEAR1 = [f"single_transformer_blocks.0.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]


def trained(family: str, method: str = "lora", **more: object) -> AdapterFile:
    return made.read(made.kohya(family, made.weights(family, method), method=method, **more), family)


def there_and_back(adapter: AdapterFile, through: str) -> AdapterFile:
    family = adapter.family
    return made.read_files(write(made.read_files(write(adapter, through).files, family), adapter.format).files, family)


def alphas(adapter: AdapterFile) -> dict[str, tuple[int, float]]:
    return {module.paths[0]: (module.rank, module.alpha) for module in adapter.modules}


@pytest.mark.parametrize("family", made.FAMILY_NAMES)
def test_there_and_back_is_the_same_to_the_last_bit(family: str):
    kohya = trained(family, alpha=3.0)
    for source, through in permutations(FORMATS, 2):
        adapter = made.read_files(write(kohya, source).files, family)
        assert adapter.format == source
        back = there_and_back(adapter, through)
        assert made.same(made.named(back), made.named(kohya)), (source, through)
        assert alphas(back) == alphas(kohya), (source, through)


@pytest.mark.parametrize(("method", "alpha"), [("lora", 1.0), ("dora", 8.0), ("dora", 0.3)])
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_through_all_of_them_is_the_same_to_the_last_bit(family: str, method: str, alpha: float):
    adapter = kohya = trained(family, method, alpha=alpha)
    for through in ("diffusers", "peft", "comfyui", "kohya"):
        adapter = made.read_files(write(adapter, through).files, family)
    assert made.same(made.named(adapter), made.named(kohya))
    assert alphas(adapter) == alphas(kohya)


def test_kohyas_file_is_the_same_file_again_to_every_tensor():
    data = made.kohya("sdxl", made.weights("sdxl"), alpha=1.0)
    back = write(made.read_files(write(made.read(data), "diffusers").files, "sdxl"), "kohya").files[""]
    assert made.same(load(data), load(back))
    metadata = json.loads(back[8 : 8 + int.from_bytes(back[:8], "little")])["__metadata__"]
    assert (metadata["ss_network_module"], metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("networks.lora", "2", "1.0")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_goes_there_and_back_as_well(precision: str):
    half = made.read(write(trained("flux", alpha=1.0), "kohya", precision=precision).files[""])
    assert half.dtypes == ({"fp16": "float16", "bf16": "bfloat16"}[precision],)
    for through in FORMATS:
        assert made.same(made.named(there_and_back(half, through)), made.named(half))


def test_a_power_of_two_goes_into_the_weights_of_diffusers_file_and_others_into_what_it_says():
    plain = made.weights("sd1")
    name = "unet.mid_block.attentions.0.proj_in.lora_B.weight"
    halved = write(trained("sd1", alpha=1.0), "diffusers")
    assert torch.equal(load(halved.files[""])[name], plain[name] / 2)
    assert halved.notes == ()
    told = write(trained("sd1", alpha=3.0), "diffusers")
    assert torch.equal(load(told.files[""])[name], plain[name])
    assert "no power of two, as 1.5" in " ".join(told.notes)
    folded = write(trained("sd1", alpha=3.0), "diffusers", fold=True)
    assert torch.equal(load(folded.files[""])[name], plain[name] * 1.5)
    assert folded.notes == ("scales are in the weights, rounded",)


def test_numbers_too_small_for_a_power_of_two_are_left_as_they_are():
    tiny = {name: tensor * 1e-40 for name, tensor in made.weights("sd1").items()}
    back = there_and_back(made.read(made.kohya("sd1", tiny, alpha=2**-6)), "diffusers")
    assert made.same(made.named(back), tiny)


# Layers that are one in the file's model


@pytest.mark.parametrize("through", ["kohya", "comfyui"])
@pytest.mark.parametrize("only", [QKV[:2], QKV[2:], LINEAR1, LINEAR1[1:3], LINEAR1[3:], [*QKV, *LINEAR1[:1]]])
def test_some_of_the_layers_of_one_come_back_alone(only: list[str], through: str):
    weights = made.weights("flux", only=[f"transformer.{module}" for module in only])
    weights = {name.replace("transformer.transformer.", "transformer."): tensor for name, tensor in weights.items()}
    adapter = made.read(made.diffusers("flux", weights, text_encoder=False, alpha=2.0), "flux")
    assert made.same(made.named(there_and_back(adapter, through)), weights)


def test_a_layer_that_was_trained_as_one_comes_back_as_one():
    name = "lora_unet_single_blocks_3_linear1"
    file = {f"{name}.lora_down.weight": torch.randn(3, 8), f"{name}.lora_up.weight": torch.randn(56, 3), f"{name}.alpha": torch.tensor(3.0)}
    for through in FORMATS:
        back = write(made.read_files(write(made.read(save(file), "flux"), through).files, "flux"), "kohya").files[""]
        assert made.same(load(back), file), through


def test_layers_of_one_with_different_scales_and_ranks_stay_what_they_are():
    ranks, scales = (2, 3, 4), (1.0, 0.5, 0.25)
    modules = tuple(
        Module(
            paths=(f"transformer.{path}",),
            method="lora",
            tensors={"A": torch.randn(rank, 8), "B": torch.randn(8, rank)},
            rank=rank,
            alpha=scale * rank,
        )
        for path, rank, scale in zip(QKV, ranks, scales, strict=True)
    )
    adapter = AdapterFile(format="peft", families=("flux",), modules=modules)
    back = made.read_files(write(made.read_files(write(adapter, "peft").files, "flux"), "kohya").files, "flux")
    update = {module.paths: module.scaling * module.tensors["B"] @ module.tensors["A"] for module in modules}
    assert {module.paths: module.rank for module in back.modules} == {module.paths: module.rank for module in modules}
    assert all(torch.equal(module.scaling * module.tensors["B"] @ module.tensors["A"], update[module.paths]) for module in back.modules)
    assert alphas(made.read_files(write(adapter, "peft").files, "flux")) == alphas(adapter)


# What cannot be held


def lycoris(name: str = "lora_unet_mid_block_attentions_0_proj_in") -> dict[str, Tensor]:
    return {f"{name}.lokr_w1": torch.ones(2, 2), f"{name}.lokr_w2": torch.ones(4, 4), f"{name}.alpha": torch.tensor(1.0)}


@pytest.mark.parametrize("to", ["diffusers", "peft"])
def test_a_method_that_a_format_has_not_is_refused(to: str):
    with pytest.raises(NotHeld, match=f"is LoKr on unet.mid_block.attentions.0.proj_in: files of {to} hold LoRA and DoRA alone"):
        write(made.read(save(lycoris()), "sd1"), to)


@pytest.mark.parametrize("to", ["kohya", "comfyui"])
def test_lycoris_methods_stay_what_they_are_also_on_layers_that_are_several_of_ours(to: str):
    for family, name in (("sd1", "lora_unet_mid_block_attentions_0_proj_in"), ("flux", "lora_unet_double_blocks_0_img_attn_qkv")):
        file = lycoris(name)
        back = write(made.read_files(write(made.read(save(file), family), to).files, family), "kohya").files[""]
        assert {key for key in load(back) if "lokr" in key} == {key for key in file if "lokr" in key}


def test_a_dora_on_some_of_the_layers_of_one_has_no_place_there():
    weights = made.weights("flux", "dora", only=[f"transformer.{module}" for module in QKV[:2]])
    weights = {name.replace("transformer.transformer.", "transformer."): tensor for name, tensor in weights.items()}
    with pytest.raises(NotHeld, match="but not on all of"):
        write(made.read(made.diffusers("flux", weights, method="dora", text_encoder=False), "flux"), "kohya")


def test_numbers_beyond_half_precision_are_refused_there():
    adapter = trained("sd1")
    huge = replace(
        adapter, modules=tuple(module.with_tensors({**module.tensors, "B": module.tensors["B"] * 1e6}) for module in adapter.modules)
    )
    with pytest.raises(NotHeld, match="fp16 cannot hold; write it in bf16 or fp32"):
        write(huge, "kohya", precision="fp16")


def test_an_alpha_that_single_precision_cannot_hold_is_told():
    adapter = trained("sd1")
    odd = replace(adapter, modules=tuple(replace(module, alpha=2 / 3**0.5) for module in adapter.modules))
    assert "alphas are rounded to single precision" in write(odd, "kohya").notes[0]
    assert write(odd, "peft").notes == ()


def test_locons_three_factors_are_two_elsewhere():
    name = "lora_unet_up_blocks_1_resnets_0_conv1"
    down, mid, up = torch.randn(2, 8, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(8, 2, 1, 1)
    file = {f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": mid, f"{name}.lora_up.weight": up}
    found = made.read_files(write(made.read(save(file), "sd1"), "diffusers").files, "sd1").modules[0]
    whole = torch.einsum("or,rshw,si->oihw", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    ours = (found.tensors["B"].flatten(1) @ found.tensors["A"].flatten(1)).view_as(whole)
    assert torch.allclose(ours, whole, atol=1e-6)
    kept = load(write(made.read(save(file), "sd1"), "kohya").files[""])
    assert torch.equal(kept[f"{name}.lora_mid.weight"], mid)
