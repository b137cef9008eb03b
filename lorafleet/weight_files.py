"""The names under which a part of a base may keep its weights, in the order in which they are looked for. Pure."""

from collections.abc import Iterator

# The full precision is taken where there are several.
VARIANTS = ("", ".fp32", ".fp16", ".bf16")
DIFFUSERS_NAME = "diffusion_pytorch_model"
TRANSFORMERS_NAME = "model"


def single_files(part: str) -> Iterator[str]:
    """Weights in one file, each the first choice before the next."""
    for stem in (DIFFUSERS_NAME, TRANSFORMERS_NAME):
        for variant in VARIANTS:
            yield f"{part}/{stem}{variant}.safetensors"
