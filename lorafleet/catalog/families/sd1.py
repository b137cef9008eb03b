"""Stable Diffusion 1.x (Rombach et al. 2022): one CLIP text encoder, of which people skip the last layers."""

from collections.abc import Iterator

from lorafleet.catalog import presets
from lorafleet.catalog.families import _one_encoder as shared
from lorafleet.catalog.family import TOKEN, Configs, Family, Label
from lorafleet.catalog.single_file import UNET, UNET_MARKS, VAE, SingleFile, takes_sizes, text_width


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    return shared.misfits(configs, FACTS.name)


def _is_it(configs: Configs) -> bool:
    return not shared.is_sd2(configs)


def _label(configs: Configs) -> Label:
    return Label(architecture=FACTS.architecture, kohya_version="sd_v1_v" if shared.is_v(configs) else FACTS.kohya_version)


FACTS = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    pipeline=shared.PIPELINE,
    is_it=_is_it,
    parts=shared.one_encoder_parts(),
    presets=presets.unet(has_linear_projections=False),
    has_clip_skip=True,
    single_file=SingleFile(
        denoiser="unet",
        parts={"unet": UNET, "vae": VAE[:1], "text_encoder": ("cond_stage_model.transformer.",)},
        marks=UNET_MARKS,
        is_it=lambda unet: not takes_sizes(unet) and text_width(unet) != shared.SD2_TEXT_WIDTH,
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer.
    values_per_pixel=380,
    recomputed_values_per_pixel=92,
    text_values=77 * 768,
    first_layer="conv_in",
    architecture="stable-diffusion-v1",
    kohya_version="sd_v1",
    label=_label,
    misfits=_misfits,
    token_keys=(TOKEN,),
)
