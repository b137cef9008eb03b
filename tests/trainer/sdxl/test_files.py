"""SDXL's files are named as people's tools look them up, load in diffusers, and draw there the pictures that the trainer drew."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from lorafleet.contract.run_manifest import Style
from tests.trainer.sdxl import tiny_base
from tests.trainer.sdxl.kohya_names import kohya_name
from tests.trainer.sdxl.styles import Sdxl

pytestmark = pytest.mark.timeout(600)

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERY_KIND = [
    *ATTENTION,
    *("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"),
    *("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2", "add_embedding.linear_1", "add_embedding.linear_2"),
]
PROMPTS = {"prompts": ["red round thing 3", "a tall blue square", ""], "num_inference_steps": 3, "guidance_scale": 4.0, "seed": 11}

# Of the real SDXL: three levels of two layers, with transformers of 2 and of 10 blocks from the second level on.
REAL = {
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
REAL_NAMES = {
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
    "unet.down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k": "lora_unet_input_blocks_5_1_transformer_blocks_1_attn2_to_k",
    "unet.down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_v": "lora_unet_input_blocks_7_1_transformer_blocks_0_attn1_to_v",
    "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0": "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_out_0",
    "unet.mid_block.attentions.0.transformer_blocks.5.attn1.to_q": "lora_unet_middle_block_1_transformer_blocks_5_attn1_to_q",
    "unet.up_blocks.0.attentions.0.transformer_blocks.9.attn1.to_q": "lora_unet_output_blocks_0_1_transformer_blocks_9_attn1_to_q",
    "unet.up_blocks.0.attentions.2.transformer_blocks.0.attn2.to_v": "lora_unet_output_blocks_2_1_transformer_blocks_0_attn2_to_v",
    "unet.up_blocks.1.attentions.2.transformer_blocks.1.ff.net.0.proj": "lora_unet_output_blocks_5_1_transformer_blocks_1_ff_net_0_proj",
    "unet.up_blocks.1.attentions.0.proj_in": "lora_unet_output_blocks_3_1_proj_in",
    "unet.down_blocks.0.resnets.1.conv1": "lora_unet_input_blocks_2_0_in_layers_2",
    "unet.down_blocks.0.downsamplers.0.conv": "lora_unet_input_blocks_3_0_op",
    "unet.down_blocks.1.downsamplers.0.conv": "lora_unet_input_blocks_6_0_op",
    "unet.mid_block.resnets.1.time_emb_proj": "lora_unet_middle_block_2_emb_layers_1",
    "unet.up_blocks.0.upsamplers.0.conv": "lora_unet_output_blocks_2_2_conv",
    "unet.up_blocks.1.upsamplers.0.conv": "lora_unet_output_blocks_5_2_conv",
    "unet.up_blocks.2.resnets.0.conv_shortcut": "lora_unet_output_blocks_6_0_skip_connection",
    "unet.up_blocks.2.resnets.2.conv2": "lora_unet_output_blocks_8_0_out_layers_3",
    "unet.conv_in": "lora_unet_input_blocks_0_0",
    "unet.add_embedding.linear_2": "lora_unet_label_emb_0_2",
    "text_encoder.encoder.layers.0.self_attn.q_proj": "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
    "text_encoder.encoder.layers.11.self_attn.out_proj": "lora_te1_text_model_encoder_layers_11_self_attn_out_proj",
    "text_encoder_2.text_model.encoder.layers.31.self_attn.k_proj": "lora_te2_text_model_encoder_layers_31_self_attn_k_proj",
}


@pytest.fixture(scope="module")
def trained(sdxl: Sdxl) -> Style:
    """Both encoders and every kind of layer of the UNet, so far that a picture shows it."""
    style = sdxl.style(
        "every-kind",
        adapter={"target_modules": EVERY_KIND, "text_encoder": True},
        training={"max_steps": 4, "learning_rate": 2e-2, "lr_scheduler": "constant"},
        validation=PROMPTS,
        output={"precision": "fp32"},
        dataset={"trigger_phrase": "plain"},
    )
    assert sdxl.train(style).endings == {style.job: "succeeded"}
    return style


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping


def unet_config(base: Path) -> dict[str, Any]:
    return json.loads((base / "unet" / "config.json").read_text())


def pipeline_of(base: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline: Any) -> list[np.ndarray]:
    images = [
        pipeline(
            prompt,
            width=tiny_base.RESOLUTION,
            height=tiny_base.RESOLUTION,
            generator=torch.Generator("cpu").manual_seed(PROMPTS["seed"] + index),
            guidance_scale=PROMPTS["guidance_scale"],
            num_inference_steps=PROMPTS["num_inference_steps"],
        ).images[0]
        for index, prompt in enumerate(PROMPTS["prompts"])
    ]
    return [np.asarray(image, dtype=np.int16) for image in images]


def apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> int:
    """The most that a channel of a pixel differs by, of 255."""
    return max(int(abs(mine - other).max()) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("file_format", ["diffusers", "kohya"])
def test_a_file_draws_in_diffusers_what_the_trainer_drew(sdxl: Sdxl, trained: Style, file_format: str):
    ours = [np.asarray(Image.open(io.BytesIO(data)), dtype=np.int16) for data in sdxl.pictures("every-kind", 4)]
    pipeline = pipeline_of(sdxl.bases["epsilon"])
    before = drawn(pipeline)
    path = sdxl.exported(trained, file_format)
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    assert apart(ours, drawn(pipeline)) <= 1
    assert apart(ours, before) > 8, "the adapter shows in no picture"


def test_what_is_drawn_before_the_first_step_is_the_bases_own(sdxl: Sdxl, trained: Style):
    ours = [np.asarray(Image.open(io.BytesIO(data)), dtype=np.int16) for data in sdxl.pictures("every-kind", 0)]
    assert apart(ours, drawn(pipeline_of(sdxl.bases["epsilon"]))) <= 1


@pytest.mark.parametrize("objective", ["v_zero_snr"])
def test_pictures_of_a_base_that_predicts_v_are_drawn_by_its_own_schedule(sdxl: Sdxl, objective: str):
    style = sdxl.style("drawn-v", objective, training={"max_steps": 1}, validation=PROMPTS, output={"precision": "fp32"})
    sdxl.train(style)
    ours = [np.asarray(Image.open(io.BytesIO(data)), dtype=np.int16) for data in sdxl.pictures("drawn-v", 1)]
    pipeline = pipeline_of(sdxl.bases[objective])
    path = sdxl.exported(style, "kohya")
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    assert apart(ours, drawn(pipeline)) <= 1


def test_kohyas_file_has_the_published_names(sdxl: Sdxl, trained: Style):
    config = unet_config(sdxl.bases["epsilon"])
    modules = {name.rpartition(".lora_")[0] for name in sdxl.adapter("every-kind")}
    expected = {f"{kohya_name(module, config)}.{end}" for module in modules for end in ("lora_down.weight", "lora_up.weight", "alpha")}
    _, tensors = read(sdxl.exported(trained, "kohya"))
    assert tensors.keys() == expected
    assert {name.split("_")[1] for name in tensors} == {"unet", "te1", "te2"}


def test_kohyas_numbers_are_the_adapters_own(sdxl: Sdxl, trained: Style):
    config = unet_config(sdxl.bases["epsilon"])
    _, tensors = read(sdxl.exported(trained, "kohya"))
    for name, tensor in sdxl.adapter("every-kind").items():
        module, _, role = name.rpartition(".lora_")
        found = tensors[f"{kohya_name(module, config)}.{'lora_down' if role == 'A.weight' else 'lora_up'}.weight"]
        assert torch.equal(found, tensor), name
        assert float(tensors[f"{kohya_name(module, config)}.alpha"]) == 3.0


def test_diffusers_file_names_the_part_of_each_module(sdxl: Sdxl, trained: Style):
    metadata, tensors = read(sdxl.exported(trained, "diffusers"))
    assert {name.partition(".")[0] for name in tensors} == {"unet", "text_encoder", "text_encoder_2"}
    described = json.loads(metadata["lora_adapter_metadata"])
    assert {key.partition(".")[0] for key in described} == {"unet", "text_encoder", "text_encoder_2"}


@pytest.mark.parametrize("objective", tiny_base.SCHEDULERS)
def test_the_file_says_what_it_is_for(sdxl: Sdxl, objective: str):
    style = sdxl.style(f"told-{objective}", objective, training={"max_steps": 1})
    sdxl.train(style)
    metadata, _ = read(sdxl.exported(style, "kohya"))
    is_v = objective == "v_zero_snr"
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["modelspec.prediction_type"] == ("v" if is_v else "epsilon")
    assert (metadata["ss_v_parameterization"], metadata["ss_zero_terminal_snr"]) == (str(is_v), str(is_v))
    assert metadata["ss_v2"] == "False"
    assert metadata["modelspec.resolution"] == "64x64"


# The rule that names are compared with is checked too


@pytest.mark.parametrize(("module", "name"), REAL_NAMES.items(), ids=list(REAL_NAMES.values()))
def test_the_rule_gives_the_real_ones_names(module: str, name: str):
    assert kohya_name(module, REAL) == name


def test_diffusers_reads_the_rules_names_on_every_kind_of_layer(bases: dict[str, Path]):
    base = bases["epsilon"]
    theirs = pipeline_of(base)
    ours = UNet2DConditionModel.from_pretrained(base / "unet")
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=3, target_modules=EVERY_KIND), ours)
    file = _random_kohya(ours, unet_config(base))
    with torch.no_grad():
        before = _predicted(theirs.unet)
        theirs.load_lora_weights(file)
        expected, found = _predicted(ours), _predicted(theirs.unet)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(before, expected, atol=1e-2)


def _random_kohya(unet: nn.Module, config: dict[str, Any]) -> dict[str, Tensor]:
    """Fills the network's adapters; the same numbers by the rule's names."""
    draws, file = torch.Generator().manual_seed(0), dict[str, Tensor]()
    for name, parameter in unet.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=draws))
            module, _, role = name.removesuffix(".default.weight").rpartition(".")
            key = kohya_name(f"unet.{module}", config)
            file |= {
                f"{key}.{'lora_down' if role == 'lora_A' else 'lora_up'}.weight": parameter.detach().clone(),
                f"{key}.alpha": torch.tensor(3.0),
            }
    return file


def _predicted(unet: Any) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    noisy, text = torch.randn(1, 4, 16, 16, generator=draws), torch.randn(1, 20, sum(tiny_base.WIDTHS), generator=draws)
    added = {"text_embeds": torch.randn(1, tiny_base.POOLED, generator=draws), "time_ids": torch.tensor([[60, 100, 0, 3, 48, 80]])}
    return unet(noisy, 500, text, added_cond_kwargs=added).sample
