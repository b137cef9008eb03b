"""OFT: blocks of a layer's outputs are turned, each by an orthogonal matrix (Qiu et al. 2023), as LyCORIS' diag-oft does.

PEFT's method of that name turns blocks of inputs, which is another function: no file of one can be read as the other.
"""

from lorafleet.catalog.method import Fusing, Method, Shape, two_factors


def _tensors(rank: int, weight: Shape) -> dict[str, Shape]:
    """A matrix for each block of outputs; the rank is the size of a block, or the nearest below that divides the outputs."""
    size, number = two_factors(weight[0], rank)
    return {"blocks": (number, size, size)}


def _no_scaling(alpha: float, rank: int) -> float:
    return 1.0


FACTS = Method(
    name="oft",
    title="OFT (Qiu et al. 2023, as in LyCORIS: diag-oft)",
    tensors=_tensors,
    scaling=_no_scaling,
    names={"blocks": "oft_blocks"},
    least_rank=2,  # of a single output there is nothing to turn
    has_alpha=False,
    adds=False,
    fusing=Fusing.IN_PART,
    activations=1.25,  # of Z-Image, on every linear layer
    loaded_by_diffusers=(),
)
