"""Names the files in which a part of a base may keep its weights, in the order in which they are looked for. Pure."""

import re
from collections.abc import Iterator

MODEL_INDEX = "model_index.json"
SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")  # what an index may name, beside itself
# The full precision is taken where there are several.
VARIANTS = ("", ".fp32", ".fp16", ".bf16")
DIFFUSERS_NAME = "diffusion_pytorch_model"
TRANSFORMERS_NAME = "model"


def single_files(part: str) -> Iterator[str]:
    """Weights in one file, each the first choice before the next."""
    for stem in (DIFFUSERS_NAME, TRANSFORMERS_NAME):
        for variant in VARIANTS:
            yield f"{part}/{stem}{variant}.safetensors"


def indices(part: str) -> Iterator[str]:
    """Of weights in shards, in the same order."""
    for stem in (DIFFUSERS_NAME, TRANSFORMERS_NAME):
        for variant in VARIANTS:
            yield from dict.fromkeys(index_names(part, stem, variant))


def index_names(part: str, stem: str, variant: str) -> tuple[str, ...]:
    usual = f"{part}/{stem}.safetensors.index{variant}.json"  # diffusers once wrote the variant at the end
    return (usual, f"{part}/{stem}{variant}.safetensors.index.json")
