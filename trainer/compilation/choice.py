"""What `training.compile` asks for, made for a model."""

from torch import nn

from trainer.compilation.blocks import CompiledBlocks
from trainer.compilation.graphs import PassGraphs
from trainer.compilation.protocol import Compiled
from trainer.compilation.shapes import Chosen, KnownShapes


def compiled(chosen: Chosen, denoiser: nn.Module) -> Compiled | None:
    """None: passes run eagerly."""
    if chosen == "blocks":
        return CompiledBlocks(denoiser, KnownShapes())
    return PassGraphs(KnownShapes()) if chosen == "graph" else None
