"""LoKr: the update is the Kronecker product of a small matrix and a larger one, itself perhaps of low rank (Edalati et al. 2022)."""

from lorafleet.catalog.method import Fusing, Method, Shape, alpha_over_rank, two_factors

BALANCED = -1  # both sides of a layer are cut into two that are nearly alike


def _tensors(rank: int, weight: Shape, *, factor: int = BALANCED) -> dict[str, Shape]:
    """W1 (o1, i1) and W2 (o2, i2, ...), where o1 o2 and i1 i2 are the layer's sides; W2 as a product where the rank makes that smaller."""
    outputs, inputs, *kernel = weight
    (o1, o2), (i1, i2) = two_factors(outputs, factor), two_factors(inputs, factor)
    if 2 * rank >= max(o2, i2):
        return {"w1": (o1, i1), "w2": (o2, i2, *kernel)}
    return {"w1": (o1, i1), "w2_a": (o2, rank), "w2_b": (rank, i2, *kernel)}


FACTS = Method(
    name="lokr",
    title="LoKr (Edalati et al. 2022, as in LyCORIS)",
    tensors=_tensors,
    factored=_tensors,
    scaling=alpha_over_rank,
    names={role: f"lokr_{role}" for role in ("w1", "w2", "w2_a", "w2_b")},
    fusing=Fusing.APART,
    activations=1.45,  # of Z-Image, on every linear layer; of SD1 1.33
    loaded_by_diffusers=("flux2", "zimage"),
)
