"""The UNets of Stable Diffusion 1.5, 2.1 and XL as they are published, without their weights."""

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from lorafleet.catalog.method import Shape
from lorafleet.catalog.single_file import configs
from tests.trainer.families.real import Real

CLIP_TOKENS = 77


def _unet(family: str, side: int, **conditioning: Shape) -> Real:
    config = {name: value for name, value in configs(family)["unet"].items() if not name.startswith("_")}
    return Real(built=UNet2DConditionModel, config=config, latents=(4, side, side), conditioning=conditioning)


UNETS = {
    "sd1": _unet("sd1", 64, text=(CLIP_TOKENS, 768)),
    "sd2": _unet("sd2", 96, text=(CLIP_TOKENS, 1024)),
    "sdxl": _unet("sdxl", 128, text=(CLIP_TOKENS, 2048), pooled=(1280,), time_ids=(6,)),
}
