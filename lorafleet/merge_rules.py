"""How adapters are combined: the kinds, by PEFT's names for them, and what does not go together. Pure; for specs and commands."""

from collections.abc import Iterator

CAT, SVD = "cat", "svd"
# What is left of each update before the sum; of these kinds the sum is no sum of the updates, which is what they are for.
PRUNING = ("ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
KINDS = (CAT, SVD, *PRUNING)
WITH_SIGNS = ("ties_svd", "dare_ties_svd")
BY_CHANCE = ("dare_linear_svd", "dare_ties_svd")


def broken(kind: str, rank: int | None, energy: float | None, density: float | None, *, option: str = "") -> Iterator[tuple[str, str]]:
    """(the field that is wrong, why). `option`: what stands before the names of fields where people write them."""
    if kind not in KINDS:
        yield "kind", f"there is no {kind!r}; there is {', '.join(KINDS)}"
    if kind == CAT and rank is not None:
        yield "rank", f"cat is exact, and its rank the sum of the ranks; {option}kind svd makes it less"
    if kind == CAT and energy is not None:
        yield "energy", f"cat is exact, and keeps all; {option}kind svd keeps less"
    if rank is not None and energy is not None:
        yield "energy", f"gives the rank, as {option}rank does: choose one"
    if energy is not None and not 0 < energy <= 1:
        yield "energy", f"{energy:g} is no share over 0 and up to 1"
    if density is not None and kind not in PRUNING:
        yield "density", f"{kind} leaves nothing out; it is for {', '.join(PRUNING)}"
    if density is not None and not 0 < density <= 1:
        yield "density", f"{density:g} is no share over 0 and up to 1"
