"""A tiny Qwen-Image, and its losses as diffusers' QwenImagePipeline computes them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.pipelines.qwenimage import pipeline_qwenimage
from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.trainer.families import words
from tests.trainer.families.real import Real
from tests.trainer.families.reference import FlowReference, Texts
from tests.trainer.families.row import Row, load_file
from tests.trainer.sdxl.tiny_base import filled

TEXT_WIDTH = 24
LATENTS = 4  # channels
MAX_TOKENS = 80
TEMPLATE_WORDS = ("Describe", "image", "by", "detailing", "the", "color", "shape", "size", "texture", "quantity", "text", "spatial")


def write(folder: Path, variant: str = "qwen-image") -> Path:
    torch.manual_seed(20250804)
    tokenizer, number = words.qwen_tokenizer(MAX_TOKENS, [f"Ġ{word}" for word in TEMPLATE_WORDS])
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, base_image_seq_len=4, max_image_seq_len=128, shift_terminal=0.02
        ),
        vae=filled(autoencoder()),
        text_encoder=filled(Qwen2_5_VLForConditionalGeneration(_text_config(number))),
        tokenizer=tokenizer,
        transformer=filled(_transformer(), gain=1.3),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=4 * LATENTS,
        out_channels=LATENTS,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
    )


def autoencoder() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=LATENTS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.7, 1.3, 0.9, 1.1],
    )


def _text_config(vocabulary: int) -> Qwen2_5_VLConfig:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": TEXT_WIDTH}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision)


class QwenImageReference(FlowReference):
    pipeline_class = QwenImagePipeline

    def texts(self, captions: Sequence[str]) -> Texts:
        text, mask = self.pipeline.encode_prompt(list(captions), "cpu", max_sequence_length=self.pipeline.tokenizer.model_max_length)
        return {"encoder_hidden_states": text, "encoder_hidden_states_mask": mask}

    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        rows, channels, height, width = noisy.shape
        found = self.pipeline.transformer(
            hidden_states=QwenImagePipeline._pack_latents(noisy, rows, channels, height, width),
            timestep=sigmas,
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
            **texts,
        ).sample
        factor = self.pipeline.vae_scale_factor
        return QwenImagePipeline._unpack_latents(found, height * factor, width * factor, factor).squeeze(2)

    def shift(self, height: int, width: int) -> float:
        config = self.pipeline.scheduler.config
        points = (config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
        return float(torch.tensor(pipeline_qwenimage.calculate_shift(height // 2 * (width // 2), *points), dtype=torch.float64).exp())

    def latents_of(self, pixels: Tensor) -> Tensor:
        """The reverse of what the pipeline does before it decodes."""
        config = self.pipeline.vae.config
        mean, deviation = (torch.tensor(each).view(1, -1, 1, 1, 1) for each in (config.latents_mean, config.latents_std))
        return ((self.pipeline.vae.encode(pixels.unsqueeze(2)).latent_dist.mode() - mean) / deviation).squeeze(2)


def published() -> dict[str, tuple[str, ...]]:
    """By kohya's name our modules: diffusers has the published names."""
    inner = {
        *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
        *("img_mod.1", "txt_mod.1", "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    }
    around = ("img_in", "txt_in", "norm_out.linear", "proj_out", *(f"time_text_embed.timestep_embedder.linear_{n}" for n in (1, 2)))
    modules = [*around, *(f"transformer_blocks.{block}.{name}" for block in range(60) for name in inner)]
    return {f"lora_unet_{module.replace('.', '_')}": (module,) for module in modules}


_SHAPES: dict[str, tuple[int, ...]] = {"text": (512, 3584), "present": (512,)}

ROW = Row(
    family="qwen_image",
    write=write,
    variants=("qwen-image",),
    reference=QwenImageReference,
    pipeline=QwenImagePipeline,
    real=Real(built=QwenImageTransformer2DModel, config={}, latents=(16, 128, 128), conditioning=_SHAPES),
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("img_mod.1", "txt_mod.1", "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
        *("img_in", "txt_in", "norm_out.linear", "proj_out", "timestep_embedder.linear_1"),
    ),
    architectures={"qwen-image": "qwen-image"},
    misfits={
        "another Qwen": ("text_encoder/config.json", {"text_config": {"hidden_size": 32}}, "joint_attention_dim is not its hidden_size"),
        "other latents": ("vae/config.json", {"z_dim": 8, "latents_mean": [0.0] * 8, "latents_std": [1.0] * 8}, "4 times its z_dim"),
        "latents without a mean": ("vae/config.json", {"latents_mean": [0.0]}, "latents_mean that are not a number for each"),
        "a deviation of nothing": ("vae/config.json", {"latents_std": [1.0, 0, 1.0, 1.0]}, "latents_std that are not a number for each"),
        "levels that are none": ("vae/config.json", {"dim_mult": "all"}, "z_dim or dim_mult that are no positive numbers"),
        "for layers": ("vae/config.json", {"input_channels": 4}, "use the base that draws pictures"),
        "for editing": ("transformer/config.json", {"zero_cond_t": True}, "use the base that draws from text"),
        "distilled": ("transformer/config.json", {"guidance_embeds": True}, "guidance_embeds: it was distilled"),
        "other channels": ("transformer/config.json", {"out_channels": 8}, "use the base that it was made from"),
    },
    drawing={"negative_prompt": "", "true_cfg_scale": 3.5, "max_sequence_length": MAX_TOKENS},
    load_kohya=load_file,
    step=8,
    pixels_per_latent=4,
    published=published,
)
