"""A family whose adapters sit elsewhere than those of Stable Diffusion."""

from dataclasses import replace

from lorafleet.catalog.families import sd1

_PARTS = tuple(replace(part, target_modules=("qkv",)) if part.name == "unet" else part for part in sd1.FACTS.parts)
FACTS = replace(sd1.FACTS, name="narrow", title="Narrow", pipeline="NarrowPipeline", parts=_PARTS)
