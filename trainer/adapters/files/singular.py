"""Layers' updates by their singular values, in double precision: sizes, and the nearest of a lower rank (Eckart and Young 1936)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from trainer.adapters.files.contents import Module
from trainer.typed_torch import qr, svd, vector_norm

_LARGE = 1500  # rows and columns from which on singular values are found by iterations
_NOTHING = 1e-12  # of the largest singular value: what is smaller is what arithmetic has left


class Singular(NamedTuple):
    """U diag(values) V^T; `left` is U, (out, rank), and `right` V, (in · kernel, rank)."""

    left: Tensor
    values: Tensor
    right: Tensor

    @property
    def size(self) -> float:
        """Frobenius norm."""
        return float(vector_norm(self.values, dim=0))

    @property
    def largest_output(self) -> float:
        """Spectral norm: the largest output of an input of length one."""
        return float(self.values.max()) if len(self.values) else 0.0

    def beyond(self, rank: int) -> float:
        """The size of what the nearest of this rank leaves out."""
        return float(vector_norm(self.values[rank:], dim=0)) if len(self.values) > rank else 0.0

    def rank_for(self, energy: float) -> int:
        """The least rank that keeps this share of the squares of the singular values; at least 1."""
        squares = self.values.square().cumsum(0)
        return 1 + int((squares < energy * squares[-1]).sum().clamp_max(len(squares) - 1))

    @property
    def rank(self) -> int:
        """As far as arithmetic tells; at least 1."""
        return int((self.values > _NOTHING * self.largest_output).sum()) or 1

    def nearest(self, rank: int) -> "LowRank":
        """Of all matrices of at most this rank, with the singular values shared out evenly."""
        root = self.values[:rank].sqrt()
        return LowRank(self.left[:, : len(root)] * root, (self.right[:, : len(root)] * root).T)


@dataclass(frozen=True)
class LowRank:
    """B A: `b` (out, rank), `a` (rank, in · kernel)."""

    b: Tensor
    a: Tensor

    @classmethod
    def sum_of(cls, terms: Sequence[tuple[float, Self]]) -> Self:
        """Of weighted terms: exact, of the sum of their ranks."""
        return cls(torch.cat([weight * term.b for weight, term in terms], dim=1), torch.cat([term.a for _, term in terms]))

    @cached_property
    def singular(self) -> Singular:
        """By way of the factors, without the matrix itself: exact, and fast."""
        left, of_b = qr(self.b)
        right, of_a = qr(self.a.T)
        inner, values, other = svd(of_b @ of_a.T)
        return Singular(left @ inner, values, right @ other.T)

    def minus(self, other: "LowRank") -> "LowRank":
        return LowRank.sum_of([(1.0, self), (-1.0, other)])

    def as_module(self, path: str, inputs: Sequence[int], dtype: torch.dtype) -> Module:
        """As LoRA on a layer whose inputs are of this shape, with its kernel where it is a convolution."""
        rank = len(self.a)
        a = self.a.reshape(rank, *inputs).to(dtype)
        b = self.b.reshape(-1, rank, *[1] * (len(inputs) - 1)).to(dtype)
        return Module(paths=(path,), method="lora", tensors={"A": a, "B": b}, rank=rank, alpha=float(rank))


def singular(whole: Tensor) -> Singular:
    """Of a matrix; of a large one in single precision."""
    left, values, right = svd(whole if min(whole.shape) <= _LARGE else whole.float())
    return Singular(left.double(), values.double(), right.T.double())
