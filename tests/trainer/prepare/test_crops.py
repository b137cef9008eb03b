"""At which sizes pictures are trained: several resolutions, and buckets for pictures that keep what the base knows."""

from collections import Counter

from trainer.data.buckets import Bucket, buckets_for
from trainer.data.readers import Picture
from trainer.prepare.crops import crops_of, prior_crops

SMALL, LARGE = buckets_for(512, step=64), buckets_for(1024, step=64)


def picture(path: str, width: int, height: int) -> Picture:
    return Picture(path=path, caption="", width=width, height=height, size_bytes=1, sha256=path, has_broken_profile=False)


def sizes(found: list[Picture], *resolutions: list[Bucket]) -> list[tuple[str, int, int]]:
    return [(crop.picture.path, crop.bucket.width, crop.bucket.height) for crop in crops_of(found, resolutions)]


def test_a_picture_is_trained_at_every_resolution_that_it_need_not_be_enlarged_for():
    found = [picture("large", 2000, 2000), picture("small", 700, 700), picture("wide", 1600, 800), picture("tiny", 30, 30)]
    assert sizes(found, SMALL, LARGE) == [
        ("large", 512, 512),
        ("small", 512, 512),
        ("wide", 640, 384),
        ("tiny", 512, 512),
        ("large", 1024, 1024),
        ("wide", 1344, 768),
    ]


def test_one_resolution_has_a_crop_of_each_picture_in_their_order():
    found = [picture("b", 700, 700), picture("a", 30, 900)]
    assert [path for path, _, _ in sizes(found, LARGE)] == ["b", "a"]


def test_no_picture_is_twice_in_a_bucket_that_two_resolutions_have():
    assert len(sizes([picture("a", 700, 700)], SMALL, SMALL)) == 1


def test_every_bucket_that_is_trained_has_prior_pictures_and_none_other():
    trained = crops_of([picture(f"wide{n}", 1000, 500) for n in range(2)] + [picture("square", 900, 900)], [SMALL])
    priors = [picture(f"s{n}", 600 + n, 600) for n in range(5)]
    found = prior_crops(priors, trained)
    assert {crop.bucket for crop in found} == {crop.bucket for crop in trained}
    assert all(crop.is_prior for crop in found)
    by_bucket = Counter((crop.bucket.width, crop.bucket.height) for crop in found)
    assert by_bucket == {(512, 512): 5, (640, 384): 2}, "where none has the shape, as many as the bucket has pictures of the set"
    assert {crop.picture.path for crop in found if crop.bucket.width == 640} == {"s4", "s3"}, "the widest"


def test_prior_pictures_are_there_at_every_resolution():
    trained = crops_of([picture("a", 2000, 2000)], [SMALL, LARGE])
    found = prior_crops([picture("p", 800, 800), picture("q", 900, 900)], trained)
    assert Counter((crop.bucket.width, crop.picture.path) for crop in found) == {
        (width, path): 1 for width in (512, 1024) for path in ("p", "q")
    }
