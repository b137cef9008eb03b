"""What an adapter adds to its layer's weight: LyCORIS's published arithmetic (github.com/KohakuBlueleaf/LyCORIS), and LoRA's that is
nearest to it, by singular values, with what that leaves out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lorafleet.catalog import FAMILIES
from lorafleet.errors import InvalidInput
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.singular import LowRank, Singular, singular
from trainer.typed_torch import inverse, kron, unflatten, vector_norm

NEED_WEIGHTS = ("dora", "oft")  # methods whose update is made of the base's weights
_THREE_BY_THREE = ("conv1", "conv2", "conv_in", "conv_out", "downsamplers.0.conv", "upsamplers.0.conv")

Weights = Mapping[str, Tensor]  # of a base, by our names of modules


@dataclass(frozen=True, kw_only=True)
class AsLora:
    """`error`: the size of all that is left out, as a share of the size of the updates; `worst`: of one module, and its name."""

    adapter: AdapterFile
    error: float
    worst: tuple[float, str]


def update(module: Module, weight: Tensor | None = None) -> Tensor:
    """(out, in · kernel), in double precision. `weight`: the base's, which DoRA and OFT need."""
    of = {role: tensor.double() for role, tensor in module.tensors.items()}
    match module.method:
        case "loha":
            return module.scaling * _side(of, "w1") * _side(of, "w2")
        case "lokr":
            first, second = _factor(of, "w1"), _factor(of, "w2")
            return module.scaling * kron(first, second.flatten(1)) if second.ndim == 2 else module.scaling * _kron(first, second)
        case "oft":
            return _turned(module, of, _needed(module, weight))
        case "dora":
            return _dora(module, of, _needed(module, weight))
        case _:
            return module.scaling * _low_rank(of)


def size(module: Module) -> float:
    """Of its update, as far as the file alone tells: of DoRA its low-rank part, of OFT how far it turns."""
    if module.method == "oft":
        blocks = module.tensors["blocks"].double()
        return float(vector_norm((blocks - blocks.mT).flatten(), dim=0))
    if module.method in ("lora", "dora") and "mid" not in module.tensors:
        a, b = module.tensors["A"].double().flatten(1), module.tensors["B"].double().flatten(1)
        return float(((a @ a.T) * (b.T @ b)).sum().clamp_min(0).sqrt()) * abs(module.scaling)
    return float(vector_norm(update(module).flatten(), dim=0))


def as_lora(adapter: AdapterFile, rank: int, weights: Weights | None = None) -> AsLora:
    """A plain LoRA of at most this rank. Raises InvalidInput: it needs weights of the base that are not there."""
    modules: list[Module] = []
    left_out, whole, worst = 0.0, 0.0, (0.0, "")
    for module in adapter.modules:
        first = module.paths[0]
        if len(module.paths) > 1:
            raise InvalidInput(f"{', '.join(module.paths)} are one layer in the file, and {module.method} on it cannot be cut")
        weight = None if weights is None else weights.get(first)
        found, missed, size_of_all = _nearest(module, rank, weight, adapter.family)
        modules.append(found)
        left_out, whole = left_out + missed**2, whole + size_of_all**2
        worst = max(worst, (missed / size_of_all if size_of_all else 0.0, first))
    error = (left_out / whole) ** 0.5 if whole else 0.0
    return AsLora(adapter=replace(adapter, modules=tuple(modules)), error=error, worst=worst)


def _nearest(module: Module, rank: int, weight: Tensor | None, family: str) -> tuple[Module, float, float]:
    """(the module as LoRA, the size of what is left out, the size of all)."""
    found = singular_of(module, weight)
    inputs = shape_of_inputs(module, len(found.right), family) if weight is None else tuple(weight.shape[1:])
    dtype = next(iter(module.tensors.values())).dtype
    return found.nearest(rank).as_module(module.paths[0], inputs, dtype), found.beyond(rank), found.size


def singular_of(module: Module, weight: Tensor | None = None) -> Singular:
    """Of its update; see `update`."""
    return low_rank_of(module).singular if module.method == "lora" else singular(update(module, weight))


def low_rank_of(module: Module) -> LowRank:
    """The factors of a LoRA."""
    of = {role: tensor.double() for role, tensor in module.tensors.items()}
    a = of["A"].flatten(1)
    if "mid" in of:
        a = torch.einsum("rshw,si->rihw", of["mid"], a).flatten(1)
    return LowRank(module.scaling * of["B"].flatten(1), a)


def shape_of_inputs(module: Module, num_columns: int, family: str) -> tuple[int, ...]:
    """The shape of a layer's inputs, with its kernel where it is a convolution."""
    if "A" in module.tensors:
        mid = module.tensors.get("mid")
        return tuple(module.tensors["A"].shape[1:]) if mid is None else (module.tensors["A"].shape[1], *mid.shape[2:])
    if module.path.endswith(_THREE_BY_THREE) and module.part == FAMILIES.get(family).denoiser.name:
        return num_columns // 9, 3, 3
    is_pointwise = module.path.endswith("conv_shortcut") or (family == "sd1" and module.path.endswith(("proj_in", "proj_out")))
    return (num_columns, 1, 1) if is_pointwise else (num_columns,)


def _low_rank(of: Mapping[str, Tensor]) -> Tensor:
    if "mid" in of:
        return torch.einsum("or,rshw,si->oihw", of["B"].flatten(1), of["mid"], of["A"].flatten(1)).flatten(1)
    return of["B"].flatten(1) @ of["A"].flatten(1)


def _side(of: Mapping[str, Tensor], name: str) -> Tensor:
    """One of LoHa's two factors; with a core where it is Tucker's."""
    a, b, core = of[f"{name}_a"], of[f"{name}_b"], of.get(f"t{name[1]}")
    return a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a).flatten(1)


def _factor(of: Mapping[str, Tensor], name: str) -> Tensor:
    """One of LoKr's two factors, whole: of a convolution the second has the kernel."""
    if name in of:
        return of[name]
    a, b, core = of[f"{name}_a"], of[f"{name}_b"], of.get("t2") if name == "w2" else None
    return a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a)


def _kron(first: Tensor, second: Tensor) -> Tensor:
    """Of a convolution: each kernel is as it is."""
    return kron(first[:, :, None, None], second).flatten(1)


def _needed(module: Module, weight: Tensor | None) -> Tensor:
    if weight is None:
        raise InvalidInput(f"what {module.method} adds on {module.paths[0]} is made of the base's weights: name the base's folder")
    return weight.double()


def _dora(module: Module, of: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """g (W + s BA) / |W + s BA|, the norm over each output's weights, or each input's where the magnitudes are theirs."""
    direction = (weight.flatten(1) + module.scaling * _low_rank(of)).view_as(weight)
    magnitude = of["magnitude"]
    if magnitude.ndim == 1:
        rows = direction.flatten(1)
        return rows * (magnitude / vector_norm(rows, dim=1))[:, None] - weight.flatten(1)
    columns = direction.transpose(0, 1).flatten(1)
    turned = columns * (magnitude.flatten() / vector_norm(columns, dim=1))[:, None]
    return turned.view_as(direction.transpose(0, 1)).transpose(0, 1).flatten(1) - weight.flatten(1)


def _turned(module: Module, of: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """R W - W, R = (I + Q)(I - Q)^-1 in blocks of outputs, Q = B - B^T, no larger than alpha where that is positive."""
    blocks = of["blocks"]
    turn = blocks - blocks.mT
    length = float(vector_norm(turn.flatten(), dim=0)) + 1e-8
    if 0 < module.alpha < length:
        turn = turn * (module.alpha / length)
    one = torch.eye(blocks.shape[-1], dtype=torch.float64)
    rotation = (one + turn) @ inverse(one - turn)
    rows = unflatten(weight.flatten(1), 0, blocks.shape[:2])
    found = torch.einsum("knm,kni->kmi", rotation, rows).flatten(0, 1)
    return (found * of["rescale"].flatten()[:, None] if "rescale" in of else found) - weight.flatten(1)
