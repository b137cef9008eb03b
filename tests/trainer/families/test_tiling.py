"""Large pictures are encoded in tiles, by their size alone: nearly the same latents, under another name in the cache."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor

from examples.demo import BASE_MODEL, PICTURES
from tests.trainer.families.styles import Families
from trainer.data.buckets import Bucket
from trainer.engine import select_accelerator
from trainer.families._parts import latents_of
from trainer.frozen_base import FrozenBase
from trainer.prepare import latent_cache, tiling
from trainer.prepare.style import PreparedStyle

Of = Callable[[str], Families]
AUTOENCODERS = ("flux", "flux2", "qwen_image")  # one family of each class


def latents(packs: Families, style: PreparedStyle) -> list[Tensor]:
    base = FrozenBase(style.base, "fp32", select_accelerator(style.spec.cluster))
    parts = base.for_encoding()
    found = latent_cache.encode(style, packs.cache, base.family, parts, packs.group).latents
    assert not parts[base.family.facts.autoencoder.name].use_tiling, "pictures of other sizes are encoded whole"
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("family", AUTOENCODERS)
def test_tiles_are_those_that_diffusers_makes_of_each_picture(families: Of, family: str, monkeypatch: pytest.MonkeyPatch):
    packs = families(family)
    whole = latents(packs, packs.ready(packs.style("whole")))
    for name, value in (("MOST_PIXELS", 0), ("TILE", 32), ("STRIDE", 24)):
        monkeypatch.setattr(tiling, name, value)
    style = packs.style("tiled")
    tiled, reference = latents(packs, packs.ready(style)), packs.reference(style)
    in_tiles_of_32(reference.pipeline.vae)
    for number in (0, 1):
        assert torch.allclose(tiled[number], reference.latent(number)[0], atol=1e-5)
        assert not torch.allclose(tiled[number], whole[number], atol=1e-2)


def in_tiles_of_32(vae: Any) -> None:
    """With overlaps of a quarter."""
    if hasattr(vae, "tile_sample_min_size"):
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 32 // 2 ** (len(vae.config.block_out_channels) - 1)
    else:
        vae.enable_tiling(32, 32, 24, 24)


def test_a_trained_autoencoder_gives_nearly_the_latents_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    vae: Any = AutoencoderKL.from_pretrained(BASE_MODEL / "vae").eval()
    picture = Image.open(next(PICTURES.glob("*.png"))).convert("RGB").resize((256, 256))
    for name, value in (("TILE", 128), ("STRIDE", 96)):
        monkeypatch.setattr(tiling, name, value)
    whole = latents_of(vae, [picture]).mode
    with tiling.in_tiles(vae):
        tiled = latents_of(vae, [picture]).mode
    assert 0 < (whole - tiled).abs().mean() < 0.1 * whole.std()


def test_a_size_alone_decides_and_is_part_of_the_name(families: Of):
    """What is not large has the name that it always had."""
    packs = families("flux")
    small = packs.ready(packs.style("small"))
    large, other = (replace(small, crops=(replace(small.crops[0], bucket=Bucket(side, side)), *small.crops[1:])) for side in (1600, 1536))
    assert [tiling.name_of(crop.bucket for crop in each.crops) for each in (small, other, large)] == [[], [], ["tiles-1"]]
    assert len({each.latents_digest for each in (small, other, large)}) == 3
    assert tiling.is_tiled(Bucket(1024, 2560))
    assert not tiling.is_tiled(Bucket(1024, 2048))
