"""DoRA (Liu et al. 2024): LoRA for the direction of each output's weights, and a magnitude for each output."""

from lorafleet.catalog.method import LOW_RANK, Fusing, Method, Shape, alpha_over_rank, low_rank


def _tensors(rank: int, weight: Shape) -> dict[str, Shape]:
    return {**low_rank(rank, weight), "magnitude": weight[:1]}


FACTS = Method(
    name="dora",
    title="DoRA (Liu et al. 2024)",
    tensors=_tensors,
    scaling=alpha_over_rank,
    adds=False,
    reads_weights=True,
    raised_roles=("B",),
    names={"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"},
    initializations=LOW_RANK,
    fusing=Fusing.WHOLE,  # where a layer has no adapter its magnitudes would have to be read from the base
)
