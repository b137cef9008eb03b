"""LoHa: the update is the Hadamard product of two of low rank, so that its own rank is up to rank squared (Hyeon-Woo et al. 2022)."""

from math import prod

from lorafleet.catalog.method import Fusing, Method, Shape, alpha_over_rank


def _tensors(rank: int, weight: Shape) -> dict[str, Shape]:
    outputs, *inputs = weight
    return {"w1_a": (outputs, rank), "w1_b": (rank, *inputs), "w2_a": (outputs, rank), "w2_b": (rank, *inputs)}


def _made(rank: int, weight: Shape) -> int:
    """The products of their columns: an update of rank squared."""
    outputs, *inputs = weight
    return rank**2 * (outputs + prod(inputs))


FACTS = Method(
    name="loha",
    title="LoHa (Hyeon-Woo et al. 2022, as in LyCORIS)",
    tensors=_tensors,
    scaling=alpha_over_rank,
    names={role: f"hada_{role}" for role in ("w1_a", "w1_b", "w2_a", "w2_b")},
    made=_made,
    fusing=Fusing.IN_PART,
    loaded_by_diffusers=(),
)
