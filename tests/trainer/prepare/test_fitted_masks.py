"""Masks are cropped and scaled as their pictures are, to the size of the latents."""

import numpy as np
import pytest
from PIL import Image

from tests.trainer.pictures import saved
from trainer.data.buckets import Bucket
from trainer.data.masks import Mask
from trainer.prepare import fitted_masks, latent_cache

BUCKET, SIZE = Bucket(64, 96), (12, 8)  # a latent stands for 8 x 8 pixels


def mask_of(picture: Image.Image, *, is_alpha: bool = False) -> np.ndarray:
    mask = Mask(path="a.png", size_bytes=0, sha256="", box=(0, 0, 1, 1))
    return fitted_masks._fitted(saved(picture), mask, BUCKET, SIZE, is_alpha)[0].numpy()


@pytest.mark.parametrize("size", [(64, 96), (256, 192), (301, 177), (40, 90)])
def test_a_mask_stays_on_what_it_was_painted_over(size: tuple[int, int]):
    """A picture that is its own mask: what training sees of it, averaged over each latent's pixels, is what its mask says."""
    picture = Image.radial_gradient("L").resize(size)
    seen = np.asarray(latent_cache._fit(picture, BUCKET), dtype=np.float32) / 255
    averaged = seen.reshape(12, 8, 8, 8).mean(axis=(1, 3))
    assert np.abs(mask_of(picture) - averaged).max() < 0.05
    assert seen.max() - seen.min() > 0.3


def test_each_place_is_the_mean_over_its_pixels():
    picture = Image.new("L", (64, 96))
    picture.paste(255, (0, 0, 12, 96))
    assert mask_of(picture)[0].tolist() == pytest.approx([1.0, 0.5, 0, 0, 0, 0, 0, 0], abs=0.5 / 255 + 1e-6)


def test_an_alpha_channel_is_one_too():
    picture = Image.new("RGBA", (64, 96), (255, 255, 255, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 64, 48))
    assert mask_of(picture, is_alpha=True).mean(axis=1).tolist() == [1.0] * 6 + [0.0] * 6
