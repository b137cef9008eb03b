"""Aspect-ratio buckets: pictures of like shape train together, cropped as little as can be. Pure arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_ASPECT_RATIO = 2.0


@dataclass(frozen=True, order=True)
class Bucket:
    """Size in pixels that every picture of the bucket is brought to."""

    width: int
    height: int


def buckets_for(resolution: int, *, step: int) -> list[Bucket]:
    """Every bucket whose sides are multiples of `step` and whose area is at most resolution squared.

    For each width the largest height is taken (as in NovelAI's aspect-ratio bucketing, 2022), up to an aspect ratio of 2.
    """
    area = resolution * resolution
    shortest = max(step, math.ceil(resolution / math.sqrt(MAX_ASPECT_RATIO) / step) * step)
    found = {Bucket(resolution, resolution)}
    for side in range(shortest, resolution + 1, step):
        other = area // side // step * step
        if side < other <= side * MAX_ASPECT_RATIO:
            found |= {Bucket(side, other), Bucket(other, side)}
    return sorted(found)


def assign(width: int, height: int, buckets: Sequence[Bucket]) -> Bucket:
    """The bucket whose aspect ratio is nearest; the larger one of two equally near."""
    ratio = math.log(width / height)
    return min(buckets, key=lambda bucket: (abs(math.log(bucket.width / bucket.height) - ratio), -bucket.width * bucket.height))


def cover(width: int, height: int, bucket: Bucket) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """How a picture fills its bucket: the size to scale to, and the centred box to crop, both in pixels."""
    scale = max(bucket.width / width, bucket.height / height)
    scaled = (max(bucket.width, round(width * scale)), max(bucket.height, round(height * scale)))
    left, top = (scaled[0] - bucket.width) // 2, (scaled[1] - bucket.height) // 2
    return scaled, (left, top, left + bucket.width, top + bucket.height)


class PictureSize(NamedTuple):
    """How a picture came to its training size, in pixels: scaled from the original, then cropped at (top, left)."""

    original_height: int
    original_width: int
    crop_top: int
    crop_left: int
    height: int
    width: int


def picture_size(width: int, height: int, bucket: Bucket) -> PictureSize:
    """What becomes of a picture of that size."""
    _, (left, top, _, _) = cover(width, height, bucket)
    return PictureSize(height, width, top, left, bucket.height, bucket.width)


def visible(width: int, height: int, bucket: Bucket) -> tuple[float, float, float, float]:
    """What of a picture is left in its bucket: a box in the picture's own pixels.

    Scaling this box alone gives what cropping the scaled picture would, and a strip of 1 x 20,000 pixels need not become 384 x 7,680,000.
    """
    (across, down), (left, top, right, bottom) = cover(width, height, bucket)
    return left * width / across, top * height / down, right * width / across, bottom * height / down


def share_cut(width: int, height: int, bucket: Bucket) -> float:
    """The share of a picture's area, 0 to 1, that its bucket cuts away."""
    (across, down), _ = cover(width, height, bucket)
    return 1 - bucket.width * bucket.height / (across * down)
