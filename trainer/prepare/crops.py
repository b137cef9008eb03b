"""Which pictures are trained at which sizes: those of the data set, and those that keep what the base knows. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.data.buckets import Bucket, assign
from trainer.data.readers import Picture

Sizes = Sequence[Sequence[Bucket]]  # the buckets of each resolution, from the smallest on


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A picture at one of the sizes that it is trained at."""

    picture: Picture
    bucket: Bucket
    is_prior: bool = False  # of the regularisation set


def crops_of(pictures: Sequence[Picture], sizes: Sizes) -> list[Crop]:
    """Every picture at each resolution that it need not be enlarged for; at the smallest in any case."""
    found = (Crop(picture=picture, bucket=bucket) for number in range(len(sizes)) for picture, bucket in _at(pictures, sizes, number))
    return list(dict.fromkeys(found))  # resolutions that lie close have buckets in common


def _at(pictures: Sequence[Picture], sizes: Sizes, number: int) -> Iterator[tuple[Picture, Bucket]]:
    for picture in pictures:
        bucket = assign(picture.width, picture.height, sizes[number])
        if number == 0 or (picture.width >= bucket.width and picture.height >= bucket.height):
            yield picture, bucket


def prior_crops(pictures: Sequence[Picture], trained: Sequence[Crop]) -> list[Crop]:
    """Pictures of the regularisation set for every bucket that is `trained`: a micro-batch is of one.

    Those whose shape is nearest to a bucket of its size; of a bucket that is nearest to none, as many as it has pictures.
    """
    counts: dict[Bucket, int] = {}
    for crop in trained:
        counts[crop.bucket] = counts.get(crop.bucket, 0) + 1
    found: dict[Bucket, list[Picture]] = {bucket: [] for bucket in sorted(counts)}
    for picture in pictures:
        for alike in _by_area(list(found)):
            found[assign(picture.width, picture.height, alike)].append(picture)
    return [
        Crop(picture=picture, bucket=bucket, is_prior=True)
        for bucket, nearest in found.items()
        for picture in nearest or sorted(pictures, key=lambda each: _distance(each, bucket))[: counts[bucket]]
    ]


def _by_area(buckets: Sequence[Bucket]) -> list[list[Bucket]]:
    """Buckets of like area, as those of one resolution are."""
    found: list[list[Bucket]] = []
    for bucket in sorted(buckets, key=lambda each: each.width * each.height):
        if found and bucket.width * bucket.height < 1.5 * found[-1][0].width * found[-1][0].height:
            found[-1].append(bucket)
        else:
            found.append([bucket])
    return found


def _distance(picture: Picture, bucket: Bucket) -> float:
    return abs(math.log(picture.width / picture.height) - math.log(bucket.width / bucket.height))
