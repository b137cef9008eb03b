"""Low-rank matrices in double precision, as their factors: sums, sizes and the nearest of a lower rank, without the matrices themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from trainer.typed_torch import qr, svd, vector_norm


@dataclass(frozen=True)
class LowRank:
    """B A, of a layer's update: `b` (out, rank), `a` (rank, in · kernel)."""

    b: Tensor
    a: Tensor

    @classmethod
    def sum_of(cls, terms: Sequence[tuple[float, Self]]) -> Self:
        """Of weighted terms: exact, of the sum of their ranks."""
        return cls(torch.cat([weight * term.b for weight, term in terms], dim=1), torch.cat([term.a for _, term in terms]))

    @cached_property
    def singular(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, singular values and V of B A, by way of its factors."""
        left, of_b = qr(self.b)
        right, of_a = qr(self.a.T)
        inner, values, other = svd(of_b @ of_a.T)
        return left @ inner, values, right @ other.T

    @property
    def size(self) -> float:
        """Frobenius norm."""
        return float(vector_norm(self.singular[1], dim=0))

    @property
    def largest_output(self) -> float:
        """Spectral norm: the largest output of an input of length one."""
        return float(self.singular[1].max()) if self.a.numel() else 0.0

    def minus(self, other: "LowRank") -> "LowRank":
        return LowRank.sum_of([(1.0, self), (-1.0, other)])

    def nearest(self, rank: int) -> "LowRank":
        """Of all matrices of at most this rank (Eckart and Young 1936), with the singular values shared out evenly."""
        left, values, right = self.singular
        root = values[:rank].sqrt()
        return LowRank(left[:, : len(root)] * root, (right[:, : len(root)] * root).T)

    def rank_for(self, energy: float) -> int:
        """The least rank that keeps this share of the squares of the singular values; at least 1."""
        squares = self.singular[1].square().cumsum(0)
        return 1 + int((squares < energy * squares[-1]).sum().clamp_max(len(squares) - 1))
