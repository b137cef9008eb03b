"""Presets of target modules are the layers that they are named for, of the published denoisers."""

import re
from typing import Any

import pytest
from safetensors.torch import load
from torch import nn

from lorafleet.catalog import FAMILIES
from lorafleet.catalog.method import is_target
from lorafleet.errors import InvalidSpec
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields
from tests.trainer.families import real_adapter
from tests.trainer.families.rows import MEASURED

_ATTENTION = re.compile(r"\.(attn\d?|attention)\.")
_IN_A_BLOCK = re.compile(r"\.\d+\.|mid_block")
# Of linear layers in lists of layers that are no repeated blocks of the denoiser.
_AROUND = ("distilled_guidance_layer.", "time_text_embed.", "all_final_layer.", "all_x_embedder.", "t_embedder.", "cap_embedder.")


def modules_of(family: str) -> dict[str, nn.Module]:
    found = MEASURED[family].denoiser().named_modules()
    return {name: module for name, module in found if isinstance(module, nn.Linear | nn.Conv2d)}


def matched(family: str, preset: str) -> set[str]:
    return {name for name in modules_of(family) if is_target(name, FAMILIES.get(family).presets[preset])}


@pytest.mark.parametrize("family", MEASURED)
def test_they_are_what_they_are_named_for(family: str):
    modules, presets = modules_of(family), FAMILIES.get(family).presets
    linear = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    in_blocks = {name for name in linear if _IN_A_BLOCK.search(name) and not name.startswith(_AROUND)}
    attention = {name for name in linear if _ATTENTION.search(name)}
    assert matched(family, "attention") == attention
    assert matched(family, "attention") < matched(family, "attention-mlp") <= matched(family, "all-linear")
    assert matched(family, "all-linear") == in_blocks
    for preset, ends in presets.items():
        for end in ends:
            assert any(is_target(name, [end]) for name in modules), (preset, end)


def test_style_and_content_of_sdxl_are_the_published_blocks():
    """B-LoRA's `unet.up_blocks.0.attentions.1` and `.0`: both attentions of ten transformers."""
    for preset, block in (("style", "up_blocks.0.attentions.1."), ("content", "up_blocks.0.attentions.0.")):
        found = matched("sdxl", preset)
        assert len(found) == 10 * 2 * 4
        assert all(name.startswith(block) for name in found)


@pytest.mark.parametrize("family", MEASURED)
@pytest.mark.parametrize("preset", ["attention", "attention-mlp", "all-linear", "style", "content"])
def test_a_spec_of_each_names_its_layers_or_is_told_why_not(family: str, preset: str):
    fields: dict[str, Any] = {"base_model": {"uri": "file:///b", "family": family}, "adapter": {"targets": preset}}
    if preset in FAMILIES.get(family).presets:
        found = parse(with_fields(**fields))
        assert found.adapter.target_modules == FAMILIES.get(family).presets[preset]
        assert parse(found.model_dump()) == found, "filled in it contradicts nothing"
        assert parse(with_fields(adapter={"targets": preset})).on(family).adapter.target_modules == found.adapter.target_modules
    else:
        with pytest.raises(InvalidSpec, match=f'"{preset}": no blocks of {family} are published that hold it; there is attention'):
            parse(with_fields(**fields))


@pytest.mark.parametrize("family", [None, "sd1"])
def test_a_preset_beside_target_modules_is_refused(family: str | None):
    base = {"uri": "file:///b", **({"family": family} if family else {})}
    with pytest.raises(InvalidSpec, match=r'"attention" and adapter\.target_modules both say which layers: choose one'):
        parse(with_fields(base_model=base, adapter={"targets": "attention", "target_modules": ["to_q"]}))


def test_diffusers_is_told_of_whole_names_where_a_preset_has_stars():
    import json

    from trainer.adapters.formats.diffusers import diffusers_file

    asked = parse(with_fields(base_model={"uri": "file:///b", "family": "sdxl"}, adapter={"targets": "style", "rank": 1}))
    denoiser = MEASURED["sdxl"].denoiser()
    weights = {
        name: tensor
        for name, tensor in real_adapter.adapter(denoiser, asked).items()
        if "transformer_blocks.0." in name or "_blocks.9." in name
    }
    data = diffusers_file(weights, asked)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    told = json.loads(header["__metadata__"]["lora_adapter_metadata"])["unet.target_modules"]
    assert sorted(told) == sorted({name.removeprefix("unet.").rpartition(".lora_")[0] for name in load(data)})
    assert not any("*" in name for name in told)


@pytest.mark.parametrize(
    ("module", "end", "fits"),
    [
        ("blocks.0.attn1.to_q", "blocks.*.*.to_q", True),
        ("up.blocks.0.attn1.to_q", "blocks.*.attn1.to_q", True),
        ("blocks.0.attn1.to_q", "blocks.*.to_q", False),
        ("blocks.0.attn1.to_q", "0.*.to_k", False),
        ("to_q", "*.to_q", False),
        ("a.to_q", "*.to_q", True),
    ],
)
def test_a_star_is_one_step(module: str, end: str, fits: bool):
    assert is_target(module, [end]) == fits
