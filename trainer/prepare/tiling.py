"""Large pictures are encoded in tiles that overlap: what an autoencoder computes of a whole one grows with its area, to tens of GB.

Whether a picture is depends on the size that it is brought to alone, never on the machine: tiles change latents a little, and latents
are shared through the cache, whose name says that they were made so.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from trainer.data.buckets import Bucket

MOST_PIXELS = 1536 * 1536  # of a picture that is encoded whole
TILE = 1024  # pixels along a side; each overlaps the next by a quarter, where they are blended
STRIDE = TILE * 3 // 4
NAME = "tiles-1"


def is_tiled(bucket: Bucket) -> bool:
    return bucket.width * bucket.height > MOST_PIXELS


def name_of(buckets: Iterable[Bucket]) -> list[str]:
    """What the name of cached latents has of it."""
    return [NAME] if any(map(is_tiled, buckets)) else []


@contextmanager
def in_tiles(autoencoder: Any) -> Generator[None]:
    """Within it diffusers' autoencoder works in tiles; one that cannot works as ever."""
    if not hasattr(autoencoder, "enable_tiling"):
        yield
        return
    _turn_on(autoencoder)
    try:
        yield
    finally:
        autoencoder.disable_tiling()


def _turn_on(autoencoder: Any) -> None:
    if hasattr(autoencoder, "tile_sample_stride_height"):  # of films
        autoencoder.enable_tiling(TILE, TILE, STRIDE, STRIDE)
        return
    autoencoder.enable_tiling()
    autoencoder.tile_sample_min_size = TILE
    autoencoder.tile_latent_min_size = TILE // 2 ** (len(autoencoder.config.block_out_channels) - 1)
    autoencoder.tile_overlap_factor = 1 - STRIDE / TILE
