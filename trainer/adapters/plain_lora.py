"""A style's adapter as the nearest plain LoRA, for programs that misread its method or do not load it; with what that leaves out.

Of T-LoRA, whose update goes by the noise in a row, it is the nearest to all of them at once: the mean over times drawn uniformly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from lorafleet.catalog import METHODS
from lorafleet.catalog.method import INITIALIZATION
from lorafleet.spec import AdapterSpec
from trainer.adapters.beginnings import largest, plain
from trainer.adapters.files.singular import LowRank, Singular, singular
from trainer.adapters.formats.tensors import by_module
from trainer.adapters.layout import Layer, scaling, weight_shape
from trainer.adapters.methods import METHODS as IMPLEMENTED
from trainer.adapters.methods.protocol import Weights
from trainer.keyed import Key, Purpose
from trainer.typed_torch import vector_norm

_EXACT_UP_TO = 512  # rows and columns; of larger layers the largest singular values are found by iterations


@dataclass(frozen=True, kw_only=True)
class PlainLora:
    """`weights`: by canonical name, of `adapter`, whose scale is 1; `error`: the size of all that is left out, as a share of the size of
    the updates; `worst`: of one layer, and its path."""

    weights: Mapping[str, Tensor]
    adapter: AdapterSpec
    error: float
    worst: tuple[float, str]


@dataclass(frozen=True)
class _Nearest:
    sides: LowRank
    left_out: float
    whole: float


def nearest(weights: Mapping[str, Tensor], adapter: AdapterSpec, rank: int, layers: Mapping[str, Layer]) -> PlainLora:
    """`weights`: the adapter as files have it (`beginnings.plain`), by canonical name; `layers`: the frozen ones, by path."""
    written, sides = plain(adapter), dict[str, Tensor]()
    left_out, whole, worst = 0.0, 0.0, (0.0, "")
    for path, tensors in by_module(weights, written).items():
        layer = layers[path]
        if METHODS.get(adapter.method).ranks_by_noise:
            found = _of_ranks(tensors, shares(adapter.at(path), len(tensors["A"])), scaling(written.at(path)), rank)
        else:
            found = _of_update(_update(tensors, written.at(path), layer), path, rank)
        a, b = _padded(found.sides, rank, weight_shape(layer))
        sides |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
        left_out, whole = left_out + found.left_out**2, whole + found.whole**2
        worst = max(worst, (found.left_out / found.whole if found.whole else 0.0, path))
    return PlainLora(weights=sides, adapter=_spec(adapter, rank), error=sqrt(left_out / whole) if whole else 0.0, worst=worst)


def shares(adapter: AdapterSpec, num_ranks: int) -> Tensor:
    """Of T-LoRA's ranks: for which share of times drawn uniformly each is at work, in double precision. Where there are twice as many,
    for its beginning is subtracted, the second half is of the same ranks."""
    least = min(adapter.min_rank or 1, adapter.rank)
    beyond = torch.arange(adapter.rank, dtype=torch.float64) - least + 1  # floor(u (rank - least)) is at least this
    found = (1 - beyond / max(adapter.rank - least, 1)).clamp(0, 1)
    return torch.where(beyond <= 0, 1.0, found).repeat(num_ranks // adapter.rank)


def _of_ranks(tensors: Weights, kept: Tensor, scale: float, rank: int) -> _Nearest:
    """E |U - P|^2 is E |U|^2 - |E U|^2 + |E U - P|^2; the first ranks are kept, so that two are at work together as often as the rarer."""
    a, b = (tensors[side].detach().double().cpu().flatten(1) for side in "AB")
    products = scale**2 * (a @ a.T) * (b.T @ b)
    squares = float((products * torch.minimum(kept[:, None], kept)).sum().clamp_min(0))
    mean = LowRank(scale * b * kept, a).singular
    varies = max(squares - mean.size**2, 0.0)
    return _Nearest(mean.nearest(rank), sqrt(varies + mean.beyond(rank) ** 2), sqrt(squares))


def _update(tensors: Weights, adapter: AdapterSpec, layer: Layer) -> Tensor:
    """(out, in · kernel), where the layer is, in double precision."""
    method, device = IMPLEMENTED.get(adapter.method), layer.weight.device
    frozen = torch.zeros(weight_shape(layer), dtype=torch.float64, device=device)
    if not method.facts.adds:
        frozen = layer.weight.detach().double()
    doubles = {role: tensor.detach().to(device, torch.float64) for role, tensor in tensors.items()}
    return (method.merged(frozen, doubles, scaling(adapter)) - frozen).flatten(1)


def _of_update(update: Tensor, path: str, rank: int) -> _Nearest:
    whole = float(vector_norm(update.flatten(), dim=0))
    if min(update.shape) <= _EXACT_UP_TO:
        exact = singular(update.cpu())
        return _Nearest(exact.nearest(rank), exact.beyond(rank), whole)
    left, values, right = largest(update.float(), rank, Key(0, "").generator(Purpose.PLAIN_LORA, path))
    found = Singular(left.double().cpu(), values.double().cpu(), right.T.double().cpu())
    return _Nearest(found.nearest(rank), sqrt(max(whole**2 - float(found.values[:rank].square().sum()), 0.0)), whole)


def _padded(sides: LowRank, rank: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A and B of the rank, in single precision: of a layer that has less, the rest is zero."""
    a, b = torch.zeros(rank, sides.a.shape[1]), torch.zeros(shape[0], rank)
    a[: len(sides.a)], b[:, : len(sides.a)] = sides.a.float(), sides.b.float()
    return a.reshape(rank, *shape[1:]), b.reshape(shape[0], rank, *[1] * (len(shape) - 2))


def _spec(adapter: AdapterSpec, rank: int) -> AdapterSpec:
    own = {"method": "lora", "rank": rank, "alpha": None, "initialization": INITIALIZATION, "min_rank": None, "factor": None, "start": None}
    return adapter.model_copy(update={**own, "overrides": ()})
