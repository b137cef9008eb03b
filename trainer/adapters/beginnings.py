"""Beginnings that are something already: sides A0 and B0 of a low-rank update whose product is subtracted, so that step 0 is the base.

The frozen weight is every style's, so B0 A0 is not taken out of it, as in the papers, but out of the update: B A - B0 A0. That is a LoRA
of twice the rank, with the sides [A; A - A0] and [B - B0, B0]: what PEFT's `subtract_mutated_init` writes as [A; A0] and [B, -B0], but
zero in every bit at step 0, and no difference of large numbers where half precision computes or holds it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lorafleet.catalog import METHODS
from lorafleet.catalog.method import INITIALIZATION, PRINCIPAL
from lorafleet.errors import RunFailed
from lorafleet.spec import AdapterSpec
from lorafleet.spec_overrides import OverrideSpec
from trainer.adapters.inits import Draws, normal
from trainer.adapters.layout import Layer, Layout, scaling
from trainer.adapters.methods.protocol import Weights
from trainer.keyed import Key, Purpose
from trainer.typed_torch import qr, svd

EXACTLY = PRINCIPAL[0]
NUM_ITERATIONS, SPARE = 16, 8  # of the other; dimensions of its subspace beside the rank
KEY = "began"  # of what checkpoints keep of it, beside the optimizer's state


def is_subtracted(adapter: AdapterSpec) -> bool:
    return adapter.initialization in METHODS.get(adapter.method).subtracted


def found(where: Layout, layers: Mapping[str, Layer], adapter: AdapterSpec, key: Key) -> dict[str, Tensor]:
    """A0 and B0 of each layer, by canonical name; nothing where nothing is subtracted. Raises RunFailed for a rank that a layer has not."""
    if not is_subtracted(adapter):
        return {}
    sides: dict[str, Tensor] = {}
    for module, pieces in where.by_module.items():
        if module not in layers:
            continue  # new tokens
        weight, its = layers[module].weight.detach(), adapter.at(module)
        if its.rank > (most := min(weight.flatten(1).shape)):
            raise RunFailed(
                f"adapter.initialization: {its.initialization} takes {its.rank} singular values, adapter.rank, and {module} has {most}; "
                "use a smaller rank, there or everywhere, or another initialization",
                reason="RANK_TOO_LARGE",
            )
        draws = key.generator(Purpose.INIT, module)
        made = _principal(weight, its, draws) if its.initialization in PRINCIPAL else _orthogonal(weight, its.rank, draws)
        sides |= {piece.name: made[piece.role].reshape(piece.shape) for piece in pieces}
    return sides


def _principal(weight: Tensor, adapter: AdapterSpec, draws: Draws) -> Weights:
    """The weight's own largest singular values, shared out evenly (Meng et al. 2024, eq. 2 and 3)."""
    whole = weight.float().flatten(1)
    left, values, right = svd(whole) if adapter.initialization == EXACTLY else largest(whole, adapter.rank, draws)
    root = (values[: adapter.rank] / scaling(adapter)).sqrt()
    return {"A": (root[:, None] * right[: adapter.rank]).cpu(), "B": (left[:, : adapter.rank] * root).cpu()}


def largest(whole: Tensor, rank: int, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values, and their vectors, nearly: by iterations of a drawn subspace that is a little larger (Halko et al.
    2011, algorithm 4.4)."""
    basis, _ = qr(whole @ normal(draws, whole.shape[1], min(rank + SPARE, *whole.shape)).to(whole.device))
    for _ in range(NUM_ITERATIONS):
        across, _ = qr(whole.T @ basis)
        basis, _ = qr(whole @ across)
    left, values, right = svd(basis.T @ whole)
    return basis @ left, values, right


def _orthogonal(weight: Tensor, rank: int, draws: Draws) -> Weights:
    """The last singular vectors of a normal matrix with a deviation of 1 / rank (Soboleva et al. 2025, 4.2). Their S is part of B here."""
    left, values, right = svd(normal(draws, *weight.flatten(1).shape) / rank)
    return {"A": right[-rank:], "B": left[:, -rank:] * values[-rank:]}


def doubled(now: Weights, began: Weights, *, rank_at: int = 0) -> Weights:
    """The sides of the LoRA of twice the rank. `rank_at`: the dimension of A's rank, before which slots may lie; B's is the next."""
    a = torch.cat([now["A"], now["A"] - began["A"]], rank_at)
    return {"A": a, "B": torch.cat([now["B"] - began["B"], began["B"]], rank_at + 1)}


def named_plainly(weights: Mapping[str, Tensor], began: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    """The tensors of the LoRA that `plain` is of, by canonical name."""
    if began is None:
        return weights
    ends = [name for name in weights if name.endswith(".lora_A.weight")]
    written = {name: tensor for name, tensor in weights.items() if ".lora_" not in name}  # new tokens
    for a in ends:
        b = a.removesuffix("A.weight") + "B.weight"
        both = doubled({"A": weights[a], "B": weights[b]}, {"A": began[a], "B": began[b]})
        written |= {a: both["A"], b: both["B"]}
    return written


def plain(adapter: AdapterSpec) -> AdapterSpec:
    """The same adapter as files have it: where its beginning is subtracted, a LoRA of twice the rank and of the same scale."""
    if not is_subtracted(adapter):
        return adapter
    changed = {"method": "lora", "initialization": INITIALIZATION, "min_rank": None, "overrides": tuple(map(_twice, adapter.overrides))}
    return adapter.model_copy(update={**changed, **_twice_of(adapter)})


def _twice(override: OverrideSpec) -> OverrideSpec:
    return override.model_copy(update=_twice_of(override))


def _twice_of(spec: AdapterSpec | OverrideSpec) -> dict[str, float | None]:
    return {name: None if value is None else 2 * value for name, value in (("rank", spec.rank), ("alpha", spec.alpha))}
