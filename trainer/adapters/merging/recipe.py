"""How adapters are combined: the kinds, by PEFT's names for them, and what each goes by. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

CAT, SVD = "cat", "svd"
# What is left of each update before the sum; of these kinds the sum is no sum of the updates, which is what they are for.
PRUNING = ("ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
KINDS = (CAT, SVD, *PRUNING)
WITH_SIGNS = ("ties_svd", "dare_ties_svd")
BY_CHANCE = ("dare_linear_svd", "dare_ties_svd")
DENSITY = 0.5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`cat`: the weighted sum, exact, of the sum of the ranks. `svd`: the nearest of a lower rank. `ties_svd` (Yadav et al. 2023),
    `dare_linear_svd`, `dare_ties_svd` (Yu et al. 2024) and `magnitude_prune_svd` leave numbers of each update out first.
    """

    kind: str = CAT
    rank: int | None = None  # of the result; unset: the largest of the adapters'
    energy: float | None = None  # instead of a rank: the share of the squares of singular values that is kept
    density: float | None = None  # share of the numbers of an update that pruning keeps
    majority: Literal["total", "frequency"] = "total"  # whose sign wins: by the sum of the numbers, or by their count
    seed: int = 0  # of what DARE leaves out
    blocks: tuple[tuple[str, float], ...] = ()  # (pattern of modules, a further weight of theirs)

    def problems(self) -> Iterator[str]:
        """What does not go together, each with its option."""
        if self.kind not in KINDS:
            yield f"--kind: there is no {self.kind!r}; there is {', '.join(KINDS)}"
        if self.kind == CAT and self.rank is not None:
            yield "--rank: cat is exact, and its rank the sum of the ranks; --kind svd makes it less"
        if self.kind == CAT and self.energy is not None:
            yield "--energy: cat is exact, and keeps all; --kind svd keeps less"
        if self.rank is not None and self.energy is not None:
            yield "--energy: gives the rank, as --rank does: choose one"
        if self.energy is not None and not 0 < self.energy <= 1:
            yield f"--energy: {self.energy:g} is no share over 0 and up to 1"
        if self.density is not None and self.kind not in PRUNING:
            yield f"--density: {self.kind} leaves nothing out; it is for {', '.join(PRUNING)}"
        if self.density is not None and not 0 < self.density <= 1:
            yield f"--density: {self.density:g} is no share over 0 and up to 1"

    def weight_of(self, path: str) -> float:
        """What the weight of a module is multiplied by: of every pattern that its path, or a block around it, matches."""
        blocks = [path[:end] for end in (*(at for at, letter in enumerate(path) if letter == "."), len(path))]
        found = 1.0
        for pattern, weight in self.blocks:
            if any(fnmatchcase(block, pattern) for block in blocks):
                found *= weight
        return found
