"""What Stable Diffusion 1.x and 2.x share: parts, and what does not fit among them. The width of their text tells them apart."""

from collections.abc import Iterator

from lorafleet import objectives
from lorafleet.catalog import parts
from lorafleet.catalog.family import Configs
from lorafleet.catalog.part import Part

PIPELINE = "StableDiffusionPipeline"
SD2_TEXT_WIDTH = 1024  # of OpenCLIP ViT-H (Stable Diffusion 2); CLIP ViT-L has 768


def one_encoder_parts() -> tuple[Part, ...]:
    return (
        parts.autoencoder_kl(),
        parts.clip_text_encoder("text_encoder", "lora_te"),
        parts.clip_tokenizer("tokenizer"),
        parts.unet(),
        parts.noise_scheduler(),
    )


def is_sd2(configs: Configs) -> bool:
    """By what the UNet takes: it is what adapters are trained on."""
    return parts.attends_to(configs.get("unet", {}), SD2_TEXT_WIDTH)


def is_v(configs: Configs) -> bool:
    return configs["scheduler"].get(objectives.FIELD) == "v_prediction"


def misfits(configs: Configs, family: str) -> Iterator[tuple[str, str]]:
    unet, text = configs.get("unet"), configs.get("text_encoder")
    if not parts.latents_fit(unet, configs.get("vae")):
        yield "unet", "takes other latents than the autoencoder gives: in_channels is not its latent_channels"
    if unet is not None and unet.get("addition_embed_type") is not None:
        yield "unet", f"has addition_embed_type: this UNet takes an input that {family} does not give; it is of another family"
    if unet is not None and text is not None and not parts.attends_to(unet, text.get("hidden_size", parts.CLIP_DEFAULTS["hidden_size"])):
        yield "unet", "takes another text than the text encoder gives: cross_attention_dim is not its hidden_size"
