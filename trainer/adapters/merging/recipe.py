"""How adapters are combined: the kinds of lorafleet.merge_rules, and what each goes by. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from lorafleet import merge_rules
from lorafleet.merge_rules import CAT

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
        for field, why in merge_rules.broken(self.kind, self.rank, self.energy, self.density, option="--"):
            yield f"--{field}: {why}"

    def weight_of(self, path: str) -> float:
        """What the weight of a module is multiplied by: of every pattern that its path, or a block around it, matches."""
        blocks = [path[:end] for end in (*(at for at, letter in enumerate(path) if letter == "."), len(path))]
        found = 1.0
        for pattern, weight in self.blocks:
            if any(fnmatchcase(block, pattern) for block in blocks):
                found *= weight
        return found
