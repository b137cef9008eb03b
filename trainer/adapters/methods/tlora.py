"""T-LoRA: LoRA of which a row has as many ranks as its noise leaves it, the first ones (Soboleva et al. 2025).

Its files are those of a LoRA of the whole rank: readers know no noise, and apply all of it at every time.
"""

import torch
from torch import Tensor

from lorafleet.catalog.methods import tlora
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods.lora import LoRA
from trainer.adapters.methods.protocol import AdapterMethod, Layer, Slots


class TLoRA(LoRA):
    facts = tlora.FACTS

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        a, b = slots.weights["A"], slots.weights["B"]
        if slots.noise is None:
            raise RuntimeError("no denoiser said how much noise is in the rows: these layers are not in one that is served")
        halves = 2 if slots.is_doubled else 1  # each of the same ranks
        kept = kept_ranks(slots.noise, a.shape[1] // halves, slots.least_rank)
        return layer.add_low_rank(x, a, b, slots.scaling, out, torch.cat([kept] * halves, dim=1) if slots.is_doubled else kept)

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        return "networks.lora", {"tlora": "True", "tlora_min_rank": str(spec.min_rank or 1)}


def kept_ranks(noise: Tensor, rank: int, least: int) -> Tensor:
    """Ones and zeros, (rows, rank): floor((1 - noise) (rank - least)) + least ones. `noise`: (rows,), from 0 to 1, in single precision."""
    number = torch.floor((1 - noise) * (rank - min(least, rank)) + 1e-4) + min(least, rank)
    return (torch.arange(rank, device=noise.device) < number[:, None]).float()


METHOD: AdapterMethod = TLoRA()
