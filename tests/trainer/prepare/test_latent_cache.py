"""What goes into the cache: pictures at the sizes of their buckets, cropped before they are scaled."""

import resource

import numpy as np
import pytest
from PIL import Image

from tests.trainer.pictures import saved
from trainer.data.buckets import Bucket, assign, buckets_for, cover
from trainer.data.decode import decode
from trainer.prepare import latent_cache

CHOICES = buckets_for(512, step=64)


@pytest.mark.parametrize("size", [(1000, 900), (300, 500), (512, 512), (1280, 500), (97, 31)])
def test_cropping_first_gives_what_cropping_last_gives(size: tuple[int, int]):
    picture = Image.effect_noise(size, 80).convert("RGB")
    bucket = assign(*size, CHOICES)
    scaled, box = cover(*size, bucket)
    expected = np.asarray(picture.resize(scaled, Image.Resampling.LANCZOS).crop(box)).astype(int)
    assert np.abs(np.asarray(latent_cache._fit(picture, bucket)) - expected).max() <= 2


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 60_000)])
def test_a_thin_picture_costs_no_more_than_its_bucket(size: tuple[int, int]):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bucket = assign(*size, CHOICES)
    content = saved(Image.new("RGB", size))
    fitted = decode(content, fit=lambda picture: latent_cache._fit(picture, bucket))
    assert fitted.size == (bucket.width, bucket.height)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_the_colours_of_a_large_picture_are_those_of_a_small_one():
    ramp = Image.linear_gradient("L").resize((2000, 2000)).convert("RGB")
    small = latent_cache._fit(ramp, Bucket(64, 64))
    drafted = decode(saved(ramp, "JPEG", quality=95), at_least=(64, 64), fit=lambda picture: latent_cache._fit(picture, Bucket(64, 64)))
    assert np.abs(np.asarray(drafted).astype(int) - np.asarray(small)).max() <= 3
