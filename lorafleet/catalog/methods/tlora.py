"""T-LoRA (Soboleva et al. 2025): LoRA of which a row has the less rank, the more noise is in it."""

from lorafleet.catalog.method import LOW_RANK, Fusing, Method, alpha_over_rank, low_rank

FACTS = Method(
    name="tlora",
    title="T-LoRA (Soboleva et al. 2025)",
    tensors=low_rank,
    scaling=alpha_over_rank,
    names={"A": "lora_A.weight", "B": "lora_B.weight"},
    raised_roles=("B",),
    initializations=LOW_RANK,
    subtracted=("orthogonal",),  # of some of its ranks alone B A is not zero by the others
    fusing=Fusing.IN_PART,
    ranks_by_noise=True,
)
