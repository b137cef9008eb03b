"""Rank-stabilised LoRA (Kalajdzievski 2023): LoRA whose update is scaled by alpha over the root of the rank."""

from math import sqrt

from lorafleet.catalog.method import LOW_RANK, Fusing, Method, low_rank


def _scaling(alpha: float, rank: int) -> float:
    return alpha / sqrt(rank)


FACTS = Method(
    name="rslora",
    title="rsLoRA (Kalajdzievski 2023)",
    tensors=low_rank,
    scaling=_scaling,
    raised_roles=("B",),
    names={"A": "lora_A.weight", "B": "lora_B.weight"},
    initializations=LOW_RANK,
    fusing=Fusing.IN_PART,
)
