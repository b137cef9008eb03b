"""The sampler: what a step trains on does not depend on who asks, how many ask, or what was asked before."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainer.data.buckets import Bucket
from trainer.data.sampler import Sampler, share
from trainer.keyed import Key

SQUARE, WIDE = Bucket(64, 64), Bucket(80, 48)


def sampler(batch_size: int = 4) -> Sampler:
    return Sampler(Key(3, "style"), {SQUARE: range(10), WIDE: range(10, 15)}, batch_size)


@given(steps=st.lists(st.integers(0, 60), min_size=1))
def test_any_step_in_any_order_gives_the_same_batch(steps: list[int]):
    whole = sampler()
    expected = [whole.batch(step) for step in range(61)]
    asked = sampler()
    for step in steps:
        assert asked.batch(step) == expected[step]


@given(world=st.sampled_from([1, 2, 4]), accumulation=st.sampled_from([1, 2]), step=st.integers(0, 50))
def test_any_split_is_a_split_of_the_same_batch(world: int, accumulation: int, step: int):
    batch = sampler(8).batch(step)
    size = 8 // world // accumulation
    pieces = [share(batch, rank=rank, world_size=world, micro_batch_size=size) for rank in range(world)]
    assert all(len(mine) == accumulation for mine in pieces)
    assert Counter(index for mine in pieces for piece in mine for index in piece) == Counter(batch)


def test_a_step_draws_from_one_bucket():
    for step in range(50):
        batch = sampler().batch(step)
        assert all(index < 10 for index in batch) or all(index >= 10 for index in batch)


def test_every_picture_is_seen_once_an_epoch():
    alone = Sampler(Key(3, "style"), {SQUARE: range(10)}, 5)
    for epoch in range(4):
        assert sorted(alone.batch(2 * epoch) + alone.batch(2 * epoch + 1)) == list(range(10))


def test_fewer_pictures_than_a_batch_repeat():
    alone = Sampler(Key(3, "style"), {SQUARE: [4, 9]}, 5)
    assert Counter(alone.batch(0) + alone.batch(1)) == Counter({4: 5, 9: 5})


def test_a_long_run_forgets_old_orders():
    alone = Sampler(Key(3, "style"), {SQUARE: range(4)}, 4)
    for step in range(100):
        alone.batch(step)
    assert len(alone._orders) <= 3
