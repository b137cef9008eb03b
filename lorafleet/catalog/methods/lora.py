"""LoRA (Hu et al. 2021)."""

from lorafleet.catalog.method import LOW_RANK, PRINCIPAL, Fusing, Method, alpha_over_rank, low_rank

FACTS = Method(
    name="lora",
    title="LoRA (Hu et al. 2021)",
    tensors=low_rank,
    scaling=alpha_over_rank,
    raised_roles=("B",),
    names={"A": "lora_A.weight", "B": "lora_B.weight"},
    initializations=(*LOW_RANK, *PRINCIPAL),
    subtracted=PRINCIPAL,
    fusing=Fusing.IN_PART,
)
