"""A base of Stable Diffusion 3's kind: a transformer of text and picture that is trained from nothing by rectified flow.

Taken over, and frozen: emoji-sd's autoencoder, and its text encoder as the first CLIP. The second begins as the same and is
taught pictures first (aligned.py), then frozen too. Trained together: the transformer and a small T5.
What is computed is what lorafleet trains adapters by (trainer/families/sd3.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from examples.bases.aligned import components, teach
from examples.bases.base import Trained, token_ids
from examples.bases.pictures import Captioned

HEADS, HEAD_WIDTH, LAYERS = 5, 32, 6
CLIP_TOKENS, T5_TOKENS = 16, 12  # no caption of things has more
SHIFT = 3.0  # towards noise, as SD3 has it: what a picture shows is decided while it can hardly be seen
NUM_TIMES = 1000


class Flow:
    """See base.Kind."""

    drawing: Mapping[str, Any] = {"guidance_scale": 4.0, "num_inference_steps": 20, "max_sequence_length": T5_TOKENS}

    def __init__(self, emoji_sd: Path, captions: Sequence[str]) -> None:
        clips = [_projecting(emoji_sd), _projecting(emoji_sd)]
        width = sum(each.config.hidden_size for each in clips)
        tokenizers = [CLIPTokenizer.from_pretrained(emoji_sd / "tokenizer", model_max_length=CLIP_TOKENS) for _ in clips]
        words = _words(captions)
        vae = AutoencoderKL.from_pretrained(emoji_sd / "vae", dtype=torch.float32)
        vae.register_to_config(shift_factor=0.0)  # the mean of all latents is 0.02: nothing to move
        self.pipeline = StableDiffusion3Pipeline(
            vae=vae,
            text_encoder=clips[0],
            text_encoder_2=clips[1],
            text_encoder_3=T5EncoderModel(_t5(len(words), width)),
            tokenizer=tokenizers[0],
            tokenizer_2=tokenizers[1],
            tokenizer_3=words,
            transformer=_transformer(vae.config["latent_channels"], width),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        )
        self.trained = (
            Trained("transformer", self.pipeline.transformer, 1e-3),
            Trained("text_encoder_3", self.pipeline.text_encoder_3, 1e-3),
        )
        self._texts: tuple[Tensor, Tensor, Tensor] | None = None

    def prepare(self, rows: Captioned, generator: torch.Generator) -> None:
        """Teaches the second CLIP, once and for all, what pictures look like."""
        ids = token_ids(self.pipeline.tokenizer_2, [*rows.captions, ""])
        teach(self.pipeline.text_encoder_2, ids, components(rows.latents, self.pipeline.text_encoder_2.config.projection_dim), generator)

    def loss(self, rows: Captioned, which: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        """At logit-normal times, moved towards noise (Esser et al. 2024, section 3.1 and eq. 23)."""
        latents = rows.latents[which]
        noise = torch.randn(latents.shape, generator=generator)
        drawn = torch.sigmoid(torch.randn(len(which), generator=generator))
        sigmas = SHIFT * drawn / (1 + (SHIFT - 1) * drawn)
        share = sigmas[:, None, None, None]
        text, pooled = self._text(rows, torch.where(kept, which, len(rows.captions)))
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.pipeline.transformer(
                (1 - share) * latents + share * noise,
                encoder_hidden_states=text,
                pooled_projections=pooled,
                timestep=sigmas * NUM_TIMES,
            ).sample
        return (predicted.float() - (noise - latents)).pow(2).mean(dim=(1, 2, 3))

    def _text(self, rows: Captioned, which: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP's, which never change, are encoded once; T5 as it is now."""
        if self._texts is None:
            self._texts = self._encoded([*rows.captions, ""])
        clip, pooled, ids = self._texts
        t5 = self.pipeline.text_encoder_3(ids[which])[0]
        return torch.cat([clip[which], t5], dim=1), pooled[which]

    @torch.no_grad()
    def _encoded(self, captions: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        ids = token_ids(self.pipeline.tokenizer, captions)
        found = [encoder(ids, output_hidden_states=True) for encoder in (self.pipeline.text_encoder, self.pipeline.text_encoder_2)]
        clip = torch.cat([each.hidden_states[-2] for each in found], dim=-1)
        pooled = torch.cat([each.text_embeds for each in found], dim=-1)
        return clip, pooled, token_ids(self.pipeline.tokenizer_3, captions)


def _projecting(emoji_sd: Path) -> CLIPTextModelWithProjection:
    """emoji-sd's encoder, its pooled text as it is: a projection that changes nothing."""
    clip = CLIPTextModelWithProjection.from_pretrained(emoji_sd / "text_encoder", dtype=torch.float32)
    nn.init.eye_(clip.text_projection.weight)
    return clip


def _words(captions: Sequence[str]) -> T5Tokenizer:
    """Every word is a piece, the more likely the more captions have it; other words fall into letters. 0 pads, 1 ends."""
    counts = Counter(word for caption in captions for word in caption.split())
    total = counts.total()
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    known = [(f"▁{word}", torch.tensor(count / total).log().item()) for word, count in sorted(counts.items())]
    rare = [(piece, -30.0) for piece in ("▁", *letters)]
    return T5Tokenizer(vocab=[*pieces, *known, *rare], extra_ids=0, model_max_length=T5_TOKENS)  # pyright: ignore[reportArgumentType]


def _t5(vocabulary: int, width: int) -> T5Config:
    return T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=32,
        d_ff=2 * width,
        num_layers=1,
        num_heads=width // 32,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        dropout_rate=0.0,
    )


def _transformer(channels: int, width: int) -> SD3Transformer2DModel:
    """Every block begins as one that changes nothing, and the whole as one that predicts nothing (Peebles and Xie 2023)."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=channels,
        out_channels=channels,
        num_layers=LAYERS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=width,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=width,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    for name, module in transformer.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
        if name == "proj_out" or name.endswith((".linear",)):
            nn.init.zeros_(module.weight)
    return transformer
