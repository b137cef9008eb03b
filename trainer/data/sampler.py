"""Which pictures a step trains on: a pure function of (seed, style, step), the same for every number of workers.

A step draws its whole global batch from one bucket, so that any split into workers and micro-batches
is a split of the same list.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from trainer.data.buckets import Bucket
from trainer.keyed import Key, Purpose

T = TypeVar("T")


@dataclass
class Sampler:
    """Walks each bucket in a fresh keyed order every epoch; buckets are drawn in proportion to their size.

    `batch(step)` may be called for any step in any order: a resumed run asks for the step that it resumes at.
    """

    key: Key
    members: Mapping[Bucket, Sequence[int]]  # sample indices of the training pictures
    batch_size: int  # pictures per optimizer step over all workers
    purpose: Purpose = Purpose.ORDER  # of the draws of its orders
    _history: list[tuple[Bucket, int]] = field(default_factory=list)  # of each step: its bucket, and how often that came before
    _visits: Counter[Bucket] = field(default_factory=Counter)
    _orders: dict[tuple[Bucket, int], list[int]] = field(default_factory=dict)

    def batch(self, step: int) -> list[int]:
        """Sample indices of step `step` (from 0), in order."""
        return self.visit(*self.bucket(step))

    def bucket(self, step: int) -> tuple[Bucket, int]:
        """That the step's batch is of, and how often it came before."""
        while len(self._history) <= step:
            bucket = self._draw_bucket(len(self._history))
            self._history.append((bucket, self._visits[bucket]))
            self._visits[bucket] += 1
        return self._history[step]

    def visit(self, bucket: Bucket, visits: int) -> list[int]:
        """The samples of a bucket that comes after so many visits."""
        start = visits * self.batch_size
        return [self._at(bucket, position) for position in range(start, start + self.batch_size)]

    def _draw_bucket(self, step: int) -> Bucket:
        buckets = sorted(self.members)
        if len(buckets) == 1:
            return buckets[0]
        sizes = [len(self.members[bucket]) for bucket in buckets]
        chosen = self.key.generator(Purpose.BUCKET, step).integers(sum(sizes))
        for bucket, size in zip(buckets, sizes, strict=True):
            if chosen < size:
                return bucket
            chosen -= size
        raise AssertionError("a draw below the sum of sizes falls into a bucket")

    def _at(self, bucket: Bucket, position: int) -> int:
        epoch, place = divmod(position, len(self.members[bucket]))
        return self._order(bucket, epoch)[place]

    def _order(self, bucket: Bucket, epoch: int) -> list[int]:
        if (bucket, epoch) not in self._orders:
            for old in [old for old in self._orders if old[0] == bucket and old[1] < epoch - 1]:
                del self._orders[old]
            generator = self.key.generator(self.purpose, bucket.width, bucket.height, epoch)
            self._orders[bucket, epoch] = [self.members[bucket][i] for i in generator.permutation(len(self.members[bucket]))]
        return self._orders[bucket, epoch]


def share(batch: Sequence[T], *, rank: int, world_size: int, micro_batch_size: int) -> list[Sequence[T]]:
    """The micro-batches of one worker: every world_size-th piece of the global batch."""
    pieces = [batch[start : start + micro_batch_size] for start in range(0, len(batch), micro_batch_size)]
    return pieces[rank::world_size]
