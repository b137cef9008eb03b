"""SDXL's modules are named in kohya's files as in the UNet that it was published with, whatever its numbers of blocks and layers."""

import pytest

from lorafleet.catalog import FAMILIES
from lorafleet.catalog.sgm import sgm_names

RESIDUAL = ("conv1", "time_emb_proj", "conv2")

# Written from how that UNet is built: three levels of two layers, attention from the second level on.
OF_SDXL = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.resnets.1.conv2": "input_blocks.2.0.out_layers.3",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_out.0": "input_blocks.5.1.transformer_blocks.1.attn2.to_out.0",
    "down_blocks.1.downsamplers.0.conv": "input_blocks.6.0.op",
    "down_blocks.2.resnets.0.time_emb_proj": "input_blocks.7.0.emb_layers.1",
    "down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_v": "input_blocks.7.1.transformer_blocks.9.attn1.to_v",
    "down_blocks.2.attentions.1.proj_in": "input_blocks.8.1.proj_in",
    "mid_block.resnets.0.conv1": "middle_block.0.in_layers.2",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_k": "middle_block.1.transformer_blocks.0.attn1.to_k",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.resnets.0.conv1": "output_blocks.0.0.in_layers.2",
    "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": "output_blocks.0.1.transformer_blocks.0.attn1.to_q",
    "up_blocks.0.attentions.2.transformer_blocks.9.ff.net.0.proj": "output_blocks.2.1.transformer_blocks.9.ff.net.0.proj",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    "up_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k": "output_blocks.4.1.transformer_blocks.1.attn2.to_k",
    "up_blocks.1.resnets.2.conv_shortcut": "output_blocks.5.0.skip_connection",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "up_blocks.2.resnets.0.conv1": "output_blocks.6.0.in_layers.2",
    "up_blocks.2.resnets.2.conv_shortcut": "output_blocks.8.0.skip_connection",
}


def modules(num_layers: int, with_attention: tuple[bool, ...]) -> set[str]:
    """Of a UNet with these levels, from the outermost on, as diffusers names them; not all kinds of layers."""
    found = {name for name in OF_SDXL if not name.startswith(("down_blocks", "mid_block", "up_blocks"))}
    last = len(with_attention) - 1
    found |= {f"mid_block.resnets.{number}.{layer}" for number in (0, 1) for layer in RESIDUAL}
    found.add("mid_block.attentions.0.transformer_blocks.0.attn1.to_k")
    for side, sampler, extra, levels in (
        ("down_blocks", "downsamplers", 0, with_attention),
        ("up_blocks", "upsamplers", 1, with_attention[::-1]),
    ):
        for level, attends in enumerate(levels):
            for number in range(num_layers + extra):
                found |= {f"{side}.{level}.resnets.{number}.{layer}" for layer in RESIDUAL}
                found |= {f"{side}.{level}.attentions.{number}.transformer_blocks.0.attn1.to_q"} if attends else set()
            found |= {f"{side}.{level}.{sampler}.0.conv"} if level != last else set()
    return found


def test_the_names_of_sdxl_are_those_that_readers_look_up():
    named = sgm_names(modules(2, (False, True, True)) | OF_SDXL.keys())
    assert {module: named[module] for module in OF_SDXL} == OF_SDXL


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("with_attention", [(True,), (False, True), (True, True, False, True)])
def test_names_are_whole_and_of_one_module_each(num_layers: int, with_attention: tuple[bool, ...]):
    of_one = modules(num_layers, with_attention)
    named = sgm_names(of_one)
    assert named.keys() == of_one
    assert len(set(named.values())) == len(of_one)
    places = {int(name.split(".")[1]) for name in named.values() if name.startswith("input_blocks.")}
    assert places == set(range(len(with_attention) * (num_layers + 1))), "every block has a layer, and none is left out"


def test_a_tiny_unet_of_one_layer_a_level():
    """input_blocks: conv_in, a residual layer, its downsampling, a residual layer with attention."""
    named = sgm_names(modules(1, (False, True)))
    assert named["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"] == "input_blocks.3.1.transformer_blocks.0.attn1.to_q"
    assert named["up_blocks.0.upsamplers.0.conv"] == "output_blocks.1.2.conv"
    assert named["up_blocks.1.resnets.1.conv1"] == "output_blocks.3.0.in_layers.2"


def test_an_upsampling_without_attention_before_it_is_the_second_of_its_block():
    assert sgm_names(modules(1, (True, False)))["up_blocks.0.upsamplers.0.conv"] == "output_blocks.1.1.conv"


def test_what_that_unet_has_not_keeps_its_name():
    assert sgm_names({"encoder_hid_proj"}) == {"encoder_hid_proj": "encoder_hid_proj"}


def test_the_family_names_its_modules_so_and_stable_diffusion_does_not():
    assert FAMILIES.get("sdxl").kohya_modules is sgm_names
    assert FAMILIES.get("sd1").kohya_modules is None
