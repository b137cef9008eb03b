"""Stable Diffusion 2.x: sd1's parts, around OpenCLIP ViT-H's text of width 1024; v-prediction at 768 pixels, epsilon at 512.

It was trained on that encoder's penultimate layer. Its published folders have 23 of the 24 layers, and the last hidden state of those
is that layer's: diffusers' pipeline takes it, and so does the trainer. Nothing is left to skip, so it has no clip skip.
"""

from collections.abc import Iterator

from lorafleet.catalog import presets
from lorafleet.catalog.families import _one_encoder as shared
from lorafleet.catalog.family import TOKEN, Configs, Family, Label
from lorafleet.catalog.single_file import UNET, UNET_MARKS, VAE, SingleFile, takes_sizes, text_width


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    return shared.misfits(configs, FACTS.name)


def _label(configs: Configs) -> Label:
    is_v = shared.is_v(configs)
    return Label(architecture=f"stable-diffusion-v2-{'768-v' if is_v else '512'}", kohya_version=f"sd_v2{'_v' if is_v else ''}")


FACTS = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    pipeline=shared.PIPELINE,
    is_it=shared.is_sd2,
    parts=shared.one_encoder_parts(),
    presets=presets.unet(has_linear_projections=True),
    single_file=SingleFile(
        denoiser="unet",
        parts={"unet": UNET, "vae": VAE[:1], "text_encoder": ("cond_stage_model.model.",)},
        marks=UNET_MARKS,
        is_it=lambda unet: not takes_sizes(unet) and text_width(unet) == shared.SD2_TEXT_WIDTH,
        lacks_scheduler="what it predicts, as 768 and 512 have the same tensors",
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer.
    values_per_pixel=380,
    recomputed_values_per_pixel=92,
    text_values=77 * 1024,
    first_layer="conv_in",
    architecture="stable-diffusion-v2-512",
    kohya_version="sd_v2",
    label=_label,
    misfits=_misfits,
    token_keys=(TOKEN,),
)
