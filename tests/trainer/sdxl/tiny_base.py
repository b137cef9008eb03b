"""A tiny SDXL base, built from configs alone: every part that the real one has, small, with no weight left at zero.

The layout is the real one's where readers go by it (three levels, two layers each, attention from the second level on), so that
the names of its modules are real ones. The two text encoders differ in width and depth, and their tokenizers in what they pad with.
"""

import string
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

RESOLUTION = 64  # pixels; 16 x 16 latents
MAX_TOKENS = 20
WIDTHS = (24, 40)  # of the text encoders; the UNet sees both side by side
POOLED = 32
TIME_ID_WIDTH = 8  # of each of the six
WORDS = ("red", "green", "blue", "round", "square", "thing", "on", "a", "plain", "tall", "wide")

SCHEDULERS: dict[str, dict[str, object]] = {
    "epsilon": {"prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1},
    "v_zero_snr": {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
}


def write(folder: Path, objective: str = "epsilon") -> Path:
    """Saves the base as `save_pretrained` does; the same bytes' worth of weights every time."""
    torch.manual_seed(20240229)
    vocabulary, merges = _vocabulary()
    pipeline = StableDiffusionXLPipeline(
        vae=filled(_autoencoder()),
        text_encoder=filled(CLIPTextModel(_text_config(WIDTHS[0], 3, len(vocabulary), "quick_gelu"))),
        text_encoder_2=filled(CLIPTextModelWithProjection(_text_config(WIDTHS[1], 4, len(vocabulary), "gelu"))),
        tokenizer=_tokenizer(vocabulary, merges, "<|endoftext|>"),
        tokenizer_2=_tokenizer(vocabulary, merges, "!"),
        unet=filled(_unet(), gain=1.3),  # so that text, sizes and crops move what it predicts
        scheduler=_scheduler(objective),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def filled(model: nn.Module, gain: float = 1.0) -> Any:
    """Libraries begin biases at zero and norms at one: then what uses the wrong one of two would not show. `gain`: of all weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(gain)
    return model.eval()


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=RESOLUTION // 4,
        block_out_channels=(16, 32, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),  # pyright: ignore[reportArgumentType]
        attention_head_dim=(2, 4, 4),  # pyright: ignore[reportArgumentType]
        norm_num_groups=8,
        cross_attention_dim=sum(WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=6 * TIME_ID_WIDTH + POOLED,
    )


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        latent_channels=4,
        norm_num_groups=4,
        sample_size=RESOLUTION,
        scaling_factor=0.7,
        force_upcast=False,
    )


def _text_config(width: int, num_layers: int, vocabulary: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act=activation,
        projection_dim=POOLED,
        initializer_range=0.2,  # at the usual 0.02 and these widths all captions would be alike
        bos_token_id=0,
        eos_token_id=2,  # as in the real one's configs: the pooled token is then that of the highest id
        pad_token_id=1,
    )


def _scheduler(objective: str) -> Any:
    return EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **SCHEDULERS[objective])  # pyright: ignore[reportArgumentType]


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], pad: str) -> CLIPTokenizer:
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=MAX_TOKENS)  # pyright: ignore[reportArgumentType]


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Printable characters, each also as a word's end, and merges for a few words. "!" is 0 and the end of text the highest, as in CLIP."""
    characters = ["!", *(each for each in string.printable if each != "!" and not each.isspace())]
    tokens = [*characters, *(f"{each}</w>" for each in characters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for right in rest:
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
    tokens = list(dict.fromkeys([*tokens, *(left + right for left, right in merges)]))
    return {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}, merges
