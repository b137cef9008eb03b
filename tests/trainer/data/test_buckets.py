"""Buckets: every picture is covered, cropped as little as can be, at sizes that the base can take."""

import math

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.buckets import Bucket, assign, buckets_for, cover, share_cut, visible

SIDES = st.integers(1, 8000)


@given(resolution=st.sampled_from([64, 512, 768, 1024]), step=st.sampled_from([16, 64]))
def test_buckets_divide_and_stay_within_the_area(resolution: int, step: int):
    for bucket in buckets_for(resolution, step=step):
        assert bucket.width % step == 0
        assert bucket.height % step == 0
        assert bucket.width * bucket.height <= resolution**2
        assert max(bucket.width, bucket.height) <= 2 * min(bucket.width, bucket.height)


@given(width=SIDES, height=SIDES)
def test_a_picture_covers_its_bucket_and_is_cropped_along_one_side_only(width: int, height: int):
    bucket = assign(width, height, buckets_for(512, step=64))
    scaled, (left, top, right, bottom) = cover(width, height, bucket)
    assert (right - left, bottom - top) == (bucket.width, bucket.height)
    assert 0 <= left <= right <= scaled[0]
    assert 0 <= top <= bottom <= scaled[1]
    assert bucket.width in scaled or bucket.height in scaled


@given(width=SIDES, height=SIDES)
def test_the_nearest_aspect_ratio_is_chosen(width: int, height: int):
    choices = buckets_for(512, step=64)
    chosen = assign(width, height, choices)

    def distance(bucket: Bucket) -> float:
        return abs(math.log(bucket.width / bucket.height) - math.log(width / height))

    assert distance(chosen) <= min(map(distance, choices)) + 1e-12


def test_a_square_has_a_square():
    assert assign(300, 300, buckets_for(512, step=64)) == Bucket(512, 512)


@given(width=SIDES, height=SIDES)
def test_what_is_left_of_a_picture_is_centred_within_it_and_has_its_buckets_shape(width: int, height: int):
    bucket = assign(width, height, buckets_for(512, step=64))
    left, top, right, bottom = visible(width, height, bucket)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    scaled, _ = cover(width, height, bucket)
    assert abs(left - (width - right)) <= width / scaled[0] + 1e-9  # within a scaled pixel
    assert abs(top - (height - bottom)) <= height / scaled[1] + 1e-9
    assert math.isclose(share_cut(width, height, bucket), 1 - (right - left) * (bottom - top) / (width * height), abs_tol=1e-9)
