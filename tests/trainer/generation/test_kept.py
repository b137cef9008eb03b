"""Adapters stay in memory within a bound, and are not read again while they are there."""

import torch

from trainer.generation.adapter import Adapter, Term
from trainer.generation.kept import KeptAdapters

SIZE_BYTES = 400


def adapter(digest: str) -> Adapter:
    return Adapter(digest, {"net.linear": Term("lora", {"A": torch.zeros(4, 25)}, 1.0)})


class Reads:
    def __init__(self, most_bytes: int) -> None:
        self.kept = KeptAdapters(most_bytes)
        self.read: list[str] = []

    def get(self, digest: str) -> None:
        def read() -> Adapter:
            self.read.append(digest)
            return adapter(digest)

        assert self.kept.get(digest, read).digest == digest

    def offer(self, digest: str) -> None:
        self.kept.offer(digest, lambda: adapter(digest))


def test_the_one_not_used_for_longest_goes():
    reads = Reads(2 * SIZE_BYTES)
    for digest in ("a", "b", "a", "c", "a", "b"):
        reads.get(digest)
    assert reads.read == ["a", "b", "c", "b"]
    assert reads.kept.size_bytes == 2 * SIZE_BYTES


def test_one_larger_than_all_that_may_stay_is_drawn_with():
    reads = Reads(SIZE_BYTES // 2)
    for digest in ("a", "a", "b"):
        reads.get(digest)
    assert reads.read == ["a", "b"]


def test_what_is_offered_is_not_read_again_and_drives_nothing_out():
    reads = Reads(2 * SIZE_BYTES + 100)
    reads.get("a")
    for digest in ("b", "c"):
        reads.offer(digest)
    assert reads.kept.size_bytes == 2 * SIZE_BYTES
    for digest in ("a", "b", "c"):
        reads.get(digest)
    assert reads.read == ["a", "c"]
