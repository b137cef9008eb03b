"""Stable Diffusion 1.x, and 2.x, which is built of the same classes (Rombach et al. 2022)."""

from lorafleet.catalog.family import Family, Part, PartKind

FACTS = Family(
    name="sd1",
    title="Stable Diffusion 1.x and 2.x",
    pipeline="StableDiffusionPipeline",
    parts=(
        Part(name="vae", kind=PartKind.AUTOENCODER, classes=("AutoencoderKL",)),
        Part(
            name="text_encoder",
            kind=PartKind.TEXT_ENCODER,
            classes=("CLIPTextModel",),
            kohya_prefix="lora_te",
            target_modules=("q_proj", "k_proj", "v_proj", "out_proj"),
        ),
        Part(name="tokenizer", kind=PartKind.TOKENIZER, classes=("CLIPTokenizer", "CLIPTokenizerFast")),
        Part(
            name="unet",
            kind=PartKind.DENOISER,
            classes=("UNet2DConditionModel",),
            kohya_prefix="lora_unet",
            target_modules=("to_q", "to_k", "to_v", "to_out.0"),
        ),
        Part(name="scheduler", kind=PartKind.SCHEDULER, classes=()),
    ),
    values_per_pixel=550,  # 290 to 510 were measured: service.control.memory
    first_layer="conv_in",
    architecture="stable-diffusion-v1",
    kohya_version="sd_v1",
)
