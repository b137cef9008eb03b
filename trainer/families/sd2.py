"""Stable Diffusion 2.x: computes as 1.x does. The last hidden state of its text encoder is the layer that it was trained on (catalog)."""

from lorafleet.catalog.families import sd2
from trainer.families.protocol import Family
from trainer.families.sd1 import StableDiffusion1


class StableDiffusion2(StableDiffusion1):
    """Conditioning: `text` (rows, tokens, width)."""

    facts = sd2.FACTS


FAMILY: Family = StableDiffusion2()
