"""A base of Stable Diffusion XL's kind, begun from emoji-sd: its UNet learns a second text encoder and the sizes of pictures.

What is taken over: the autoencoder as it is, the text encoder, and every weight of the UNet. emoji-sd's UNet was trained on
the text encoder's last, normalised state; SDXL takes the state before its last layer, which nothing has normalised. So a layer
is put behind the old ones, which SDXL never reads, and the norm is folded into what reads the text, as far as a norm is linear.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from examples.bases.base import Trained, token_ids
from examples.bases.pictures import Captioned

WIDTH = 64  # of the second text encoder, and of the pooled text
TIME_ID_WIDTH, NUM_TIME_IDS = 32, 6
USUAL_SPREAD = 2.5  # standard deviation over the first encoder's channels, as measured of captions' own tokens


class Sdxl:
    """See base.Kind."""

    drawing: Mapping[str, Any] = {"guidance_scale": 4.0, "num_inference_steps": 20}

    def __init__(self, emoji_sd: Path) -> None:
        old = StableDiffusionPipeline.from_pretrained(emoji_sd, dtype=torch.float32, local_files_only=True)
        first, second = _with_a_layer_more(old.text_encoder), CLIPTextModelWithProjection(_second(old.text_encoder.config))
        self.pipeline = StableDiffusionXLPipeline(
            vae=old.vae,
            text_encoder=first,
            text_encoder_2=second,
            tokenizer=old.tokenizer,
            tokenizer_2=old.tokenizer,
            unet=_taught_more(old.unet, old.text_encoder),
            scheduler=old.scheduler,
            force_zeros_for_empty_prompt=False,  # the empty prompt is trained as it is read
            add_watermarker=False,
        )
        self.trained = (
            Trained("unet", self.pipeline.unet, 4e-5),
            Trained("text_encoder", first, 3e-5),
            Trained("text_encoder_2", second, 5e-4),
        )
        self._noising: Any = DDPMScheduler.from_config(old.scheduler.config)
        self._tokens: Tensor | None = None

    def prepare(self, rows: Captioned, generator: torch.Generator) -> None:
        """Nothing: it begins where emoji-sd has ended."""

    def loss(self, rows: Captioned, which: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        latents = rows.latents[which]
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(0, self._noising.config["num_train_timesteps"], (len(which),), generator=generator)
        text, pooled = self._text(rows, which, kept)
        noisy = self._noising.add_noise(latents, noise, times)
        added = {"text_embeds": pooled, "time_ids": rows.time_ids[which]}
        predicted = self.pipeline.unet(noisy, times, text, added_cond_kwargs=added).sample
        return (predicted - noise).pow(2).mean(dim=(1, 2, 3))

    def _text(self, rows: Captioned, which: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        if self._tokens is None:
            self._tokens = token_ids(self.pipeline.tokenizer, [*rows.captions, ""])
        ids = self._tokens[torch.where(kept, which, len(rows.captions))]
        encoders = (self.pipeline.text_encoder, self.pipeline.text_encoder_2)
        found = [encoder(ids, output_hidden_states=True) for encoder in encoders]
        return torch.cat([each.hidden_states[-2] for each in found], dim=-1), found[1].text_embeds


def _with_a_layer_more(old: CLIPTextModel) -> CLIPTextModel:
    """The last layer twice: what SDXL reads, the state before the last, is then what the old encoder's last layer gave."""
    config = CLIPTextConfig(**{**old.config.to_dict(), "num_hidden_layers": old.config.num_hidden_layers + 1})
    new = CLIPTextModel(config)
    last = old.config.num_hidden_layers - 1
    again = {name.replace(f"layers.{last}.", f"layers.{last + 1}."): value for name, value in old.state_dict().items()}
    new.load_state_dict({**old.state_dict(), **again})
    return new


def _second(old: CLIPTextConfig) -> CLIPTextConfig:
    own = {"hidden_size": WIDTH, "projection_dim": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": 2}
    return CLIPTextConfig(**{**old.to_dict(), **own, "architectures": None})


@torch.no_grad()
def _taught_more(old: UNet2DConditionModel, encoder: CLIPTextModel) -> UNet2DConditionModel:
    """The same UNet, which besides takes a second text, the pooled one and sizes, and at first makes nothing of these."""
    text = encoder.config.hidden_size
    told = {
        "cross_attention_dim": text + WIDTH,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_ID_WIDTH,
        "projection_class_embeddings_input_dim": WIDTH + NUM_TIME_IDS * TIME_ID_WIDTH,
    }
    new: Any = UNet2DConditionModel.from_config({**old.config, **told})
    norm: nn.LayerNorm = encoder.get_submodule(next(name for name, _ in encoder.named_modules() if name.endswith("final_layer_norm")))  # pyright: ignore
    weights = {**new.state_dict(), **old.state_dict()}
    for name in [name for name in weights if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]:
        weights[name] = nn.functional.pad(_without_norm(weights[name], norm), (0, WIDTH))
    for name in [name for name in weights if name.endswith("attn2.to_out.0.bias")]:
        block = name.removesuffix("to_out.0.bias")
        reads = old.state_dict()[f"{block}to_v.weight"]
        weights[name] = weights[name] + weights[f"{block}to_out.0.weight"] @ reads @ norm.bias  # a key's is the same for all tokens
    for name in ("add_embedding.linear_2.weight", "add_embedding.linear_2.bias"):
        weights[name] = torch.zeros_like(weights[name])
    new.load_state_dict(weights)
    return new


def _without_norm(weight: Tensor, norm: nn.LayerNorm) -> Tensor:
    """What reads a state as `weight` reads it normalised, were its spread the usual one."""
    scaled = weight * norm.weight / USUAL_SPREAD
    return scaled - scaled.mean(dim=1, keepdim=True)
