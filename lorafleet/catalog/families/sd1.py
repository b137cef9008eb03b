"""Stable Diffusion 1.x, and 2.x, which is built of the same classes (Rombach et al. 2022)."""

from collections.abc import Iterator

from lorafleet import objectives
from lorafleet.catalog import parts
from lorafleet.catalog.family import Configs, Family, Label

SD2_TEXT_WIDTH = 1024  # of OpenCLIP ViT-H (Stable Diffusion 2); CLIP ViT-L has 768


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    unet, text = configs.get("unet"), configs.get("text_encoder")
    if not parts.latents_fit(unet, configs.get("vae")):
        yield "unet", "takes other latents than the autoencoder gives: in_channels is not its latent_channels"
    if unet is not None and unet.get("addition_embed_type") is not None:
        yield "unet", "has addition_embed_type: this UNet takes an input that sd1 does not give; it is of another family"
    if unet is not None and text is not None and not parts.attends_to(unet, text.get("hidden_size", parts.CLIP_DEFAULTS["hidden_size"])):
        yield "unet", "takes another text than the text encoder gives: cross_attention_dim is not its hidden_size"


def _label(configs: Configs) -> Label:
    is_v = configs["scheduler"].get(objectives.FIELD) == "v_prediction"
    is_sd2 = configs["text_encoder"].get("hidden_size") == SD2_TEXT_WIDTH
    version = f"sd_v{2 if is_sd2 else 1}{'_v' if is_v else ''}"
    architecture = f"stable-diffusion-v2-{'768-v' if is_v else '512'}" if is_sd2 else "stable-diffusion-v1"
    return Label(architecture=architecture, kohya_version=version)


FACTS = Family(
    name="sd1",
    title="Stable Diffusion 1.x and 2.x",
    pipeline="StableDiffusionPipeline",
    parts=(
        parts.autoencoder_kl(),
        parts.clip_text_encoder("text_encoder", "lora_te"),
        parts.clip_tokenizer("tokenizer"),
        parts.unet(),
        parts.noise_scheduler(),
    ),
    values_per_pixel=550,  # 290 to 510 were measured, of Stable Diffusion 1.5 and of examples/models/emoji-sd: service.control.memory
    first_layer="conv_in",
    architecture="stable-diffusion-v1",
    kohya_version="sd_v1",
    label=_label,
    misfits=_misfits,
)
