"""A toy method: every input and every output of a layer gets a gain (as in Liu et al. 2022)."""

from lorafleet.catalog.method import Method, Shape


def _tensors(rank: int, weight: Shape) -> dict[str, Shape]:
    return {"inputs": (weight[1],), "outputs": (weight[0],)}


def _scaling(alpha: float, rank: int) -> float:
    return 1.0


FACTS = Method(
    name="toy_gain",
    title="Gains of inputs and outputs",
    tensors=_tensors,
    scaling=_scaling,
    names={"inputs": "gain_in", "outputs": "gain_out"},
)
