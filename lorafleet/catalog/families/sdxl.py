"""Stable Diffusion XL (Podell et al. 2023): two text encoders, the pooled text and the sizes of pictures as inputs."""

from collections.abc import Iterator

from lorafleet import objectives
from lorafleet.catalog import parts, presets
from lorafleet.catalog.family import Configs, Family, Label
from lorafleet.catalog.part import Config
from lorafleet.catalog.sgm import sgm_names
from lorafleet.catalog.single_file import UNET, UNET_MARKS, VAE, SingleFile, takes_sizes

NUM_TIME_IDS = 6  # original size, corner of the crop, target size; each (height, width)
NUM_REFINER_IDS = 5  # original size, corner of the crop, aesthetic score
_TIME_IDS = "projection_class_embeddings_input_dim"
_says = parts.clip_says


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    unet, texts = configs.get("unet"), [configs.get(name) for name in ("text_encoder", "text_encoder_2")]
    if not parts.latents_fit(unet, configs.get("vae")):
        yield "unet", "takes other latents than the autoencoder gives: in_channels is not its latent_channels"
    if unet is None:
        return
    if unet.get("addition_embed_type") != "text_time":
        yield "unet", 'has no addition_embed_type "text_time": this UNet takes no sizes of pictures; it is of another family'
        return
    if all(text is not None for text in texts) and not parts.attends_to(unet, sum(_says(text or {}, "hidden_size") for text in texts)):
        yield "unet", "takes another text than the text encoders give: cross_attention_dim is not the sum of their hidden_size"
    if texts[1] is not None:
        yield from (("unet", problem) for problem in _of_added(unet, _says(texts[1], "projection_dim")))


def _of_added(unet: Config, pooled: int) -> Iterator[str]:
    """What does not fit of the input that is added to the time: the pooled text, and an embedding of each time id."""
    width, whole = unet.get("addition_time_embed_dim"), unet.get(_TIME_IDS)
    if not isinstance(width, int) or not isinstance(whole, int) or not parts.is_count(width) or not parts.is_count(whole):
        yield f"has addition_time_embed_dim or {_TIME_IDS} that is not a positive number"
    elif whole == pooled + NUM_REFINER_IDS * width:
        yield "takes an aesthetic score: it is a refiner; use the base model"
    elif whole != pooled + NUM_TIME_IDS * width:
        yield f"takes other sizes than sdxl gives: {_TIME_IDS} is not the second text encoder's projection_dim and {NUM_TIME_IDS} time ids"


def _label(configs: Configs) -> Label:
    """Checkpoints of v-prediction are told by keys, `v_pred` and `ztsnr`: the files of adapters on them have these too."""
    scheduler = configs["scheduler"]
    is_v, has_zero_snr = scheduler.get(objectives.FIELD) == "v_prediction", scheduler.get("rescale_betas_zero_snr") is True
    more = {"ztsnr": "True"} if is_v and has_zero_snr else {}
    return Label(architecture=FACTS.architecture, kohya_version=FACTS.kohya_version, more=more)


FACTS = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    parts=(
        parts.autoencoder_kl(),
        parts.clip_text_encoder("text_encoder", "lora_te1"),
        parts.clip_text_encoder("text_encoder_2", "lora_te2", "CLIPTextModelWithProjection"),
        parts.clip_tokenizer("tokenizer"),
        parts.clip_tokenizer("tokenizer_2"),
        parts.unet(),
        parts.noise_scheduler(),
    ),
    single_file=SingleFile(
        denoiser="unet",
        parts={
            "unet": UNET,
            "vae": VAE[:1],
            "text_encoder": ("conditioner.embedders.0.transformer.",),
            "text_encoder_2": ("conditioner.embedders.1.model.",),
        },
        marks=(*UNET_MARKS, "label_emb.0.0.weight"),
        is_it=takes_sizes,
    ),
    presets=presets.unet(
        has_linear_projections=True,
        # Style: Wang et al. 2024 (InstantStyle) and Frenkel et al. 2024 (B-LoRA) found the same block; content: the latter's.
        style=presets.attention_of("up_blocks.0.attentions.1"),
        content=presets.attention_of("up_blocks.0.attentions.0"),
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer.
    values_per_pixel=710,
    recomputed_values_per_pixel=74,
    text_values=77 * 2048 + 1280,
    first_layer="conv_in",
    architecture="stable-diffusion-xl-v1-base",
    kohya_version="sdxl_base_v1-0",
    label=_label,
    misfits=_misfits,
    kohya_modules=sgm_names,
    token_keys=("clip_l", "clip_g"),  # AUTOMATIC1111 and ComfyUI look for these
)
