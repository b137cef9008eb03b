"""A tiny Krea 2, and its losses as diffusers' Krea2Pipeline computes them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.models.transformers.transformer_krea2 import Krea2Transformer2DModel
from diffusers.pipelines.krea2 import pipeline_krea2
from diffusers.pipelines.krea2.pipeline_krea2 import Krea2Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLModel

from tests.trainer.families import qwen_image, words
from tests.trainer.families.published_krea2 import published
from tests.trainer.families.qwen_image import LATENTS, QwenImageReference
from tests.trainer.families.real import Real
from tests.trainer.families.reference import Texts
from tests.trainer.families.row import Row
from tests.trainer.sdxl.tiny_base import filled
from trainer.families._krea2_rows import by_rows

TEXT_WIDTH, TEXT_LAYERS, MAX_TOKENS = 16, 12, 80
SCHEDULER = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 4, "max_image_seq_len": 128}


def write(folder: Path, variant: str = "raw") -> Path:
    torch.manual_seed(20260622)
    tokenizer, number = words.qwen_tokenizer(MAX_TOKENS, [f"Ġ{word}" for word in qwen_image.TEMPLATE_WORDS])
    Krea2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **SCHEDULER),
        vae=filled(qwen_image.autoencoder()),
        text_encoder=filled(Qwen3VLModel(_text_config(number))),
        tokenizer=tokenizer,  # pyright: ignore[reportArgumentType]
        transformer=filled(_transformer(), gain=1.3),
        is_distilled=variant == "turbo",
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer() -> Krea2Transformer2DModel:
    transformer = Krea2Transformer2DModel(
        in_channels=4 * LATENTS,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        timestep_embed_dim=16,
        text_hidden_dim=TEXT_WIDTH,
        num_text_layers=TEXT_LAYERS,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=24,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    with torch.no_grad():  # which begin at zero
        for name, parameter in transformer.named_parameters():
            if name.endswith("scale_shift_table"):
                parameter.normal_(std=0.2)
    return transformer


def _text_config(vocabulary: int) -> Qwen3VLConfig:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": 36,  # 35 are read
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "mrope_interleaved": True, "rope_theta": 10000.0},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": TEXT_WIDTH}
    return Qwen3VLConfig(text_config=text, vision_config={**vision, "deepstack_visual_indexes": [0], "num_position_embeddings": 16})


class Krea2Reference(QwenImageReference):
    pipeline_class = Krea2Pipeline

    def texts(self, captions: Sequence[str]) -> Texts:
        text, mask = self.pipeline.encode_prompt(list(captions), "cpu", max_sequence_length=self.pipeline.tokenizer.model_max_length)
        return {"encoder_hidden_states": text, "encoder_attention_mask": mask}

    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        rows, channels, height, width = noisy.shape
        num_words = texts["encoder_hidden_states"].shape[1]
        found = self.pipeline.transformer(
            hidden_states=self.pipeline._pack_latents(noisy, rows, channels, height, width),
            timestep=sigmas,
            position_ids=Krea2Pipeline.prepare_position_ids(num_words, height // 2, width // 2, torch.device("cpu")),
            **texts,
        ).sample
        factor = self.pipeline.vae_scale_factor
        return self.pipeline._unpack_latents(found, height * factor, width * factor).squeeze(2)

    def shift(self, height: int, width: int) -> float:
        points = (SCHEDULER["base_image_seq_len"], SCHEDULER["max_image_seq_len"], SCHEDULER["base_shift"], SCHEDULER["max_shift"])
        return float(torch.tensor(pipeline_krea2.calculate_shift(height // 2 * (width // 2), *points), dtype=torch.float64).exp())


ROW = Row(
    family="krea2",
    write=write,
    variants=("raw", "turbo"),
    reference=Krea2Reference,
    pipeline=Krea2Pipeline,
    real=Real(
        built=lambda: by_rows(Krea2Transformer2DModel()),  # its defaults are the published ones
        config={},
        latents=(16, 128, 128),
        conditioning={"text": (512, 12, 2560), "present": (512,)},
    ),
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0", "to_gate", "ff.gate", "ff.up", "ff.down", "img_in", "final_layer.linear"),
        *("txt_in.linear_1", "txt_in.linear_2", "time_embed.linear_1", "time_embed.linear_2", "time_mod_proj", "text_fusion.projector"),
    ),
    architectures={"raw": "Krea-2", "turbo": "Krea-2"},
    distilled=("turbo",),
    misfits={
        "another Qwen3-VL": (
            "text_encoder/config.json",
            {"text_config": {"num_hidden_layers": 36, "hidden_size": 32}},
            "not its hidden_size",
        ),
        "a short Qwen3-VL": ("text_encoder/config.json", {"text_config": {"hidden_size": TEXT_WIDTH}}, "has fewer layers than the 35"),
        "other latents": ("vae/config.json", {"z_dim": 8, "latents_mean": [0.0] * 8, "latents_std": [1.0] * 8}, "4 times its z_dim"),
        "other layers": ("transformer/config.json", {"num_text_layers": 6}, "num_text_layers"),
        "no number": ("transformer/config.json", {"num_attention_heads": None}, "num_attention_heads that is not a positive number"),
    },
    guidance_scale=3.5,
    drawing={"max_sequence_length": MAX_TOKENS},
    step=8,
    pixels_per_latent=4,
    published=published,
)
