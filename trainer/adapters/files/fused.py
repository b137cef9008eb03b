"""One layer of a file that is several of ours: its adapter cut into theirs, and theirs put together. Exact; each undoes the other.

Such a layer's outputs are those of ours, one after another. Whoever trained it as a whole has one A for all; who put adapters together
has their As one below the other, and the Bs as the blocks of a diagonal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer.adapters.files.contents import Module
from trainer.typed_torch import block_diag

_MLP = 4  # times as many outputs as its block is wide: of FLUX.1's blocks of one stream
_CUT = ("lora", "dora")


class NotHeld(ValueError):
    """Why a format cannot hold an adapter, as the end of a sentence whose subject it is."""


def cut(module: Module) -> Iterator[Module]:
    """The adapters of ours; those that add nothing while the others' As are their own are left out."""
    is_by_inputs = "magnitude" in module.tensors and module.tensors["magnitude"].ndim > 1
    if len(module.paths) == 1 or module.method not in _CUT or is_by_inputs or "mid" in module.tensors:
        yield module
        return
    a, b = module.tensors["A"], module.tensors["B"]
    ends = _slices(module)
    rows = [_own(b[at], number, len(ends)) for number, at in enumerate(ends)]
    if any(own is None for own in rows):
        rows = _by_columns([b[at] for at in ends])
    for path, at, own in zip(module.paths, ends, rows, strict=True):
        if own is None or len(own):
            kept = a if own is None else a[own]
            tensors = {"A": kept, "B": b[at] if own is None else b[at][:, own], **_magnitude(module, at)}
            rank = len(kept)
            yield replace(module, paths=(path,), tensors=tensors, rank=rank, alpha=module.scaling * rank)


def joined(parts: Sequence[Module | None], paths: Sequence[str]) -> Module:
    """One of the file's for ours. `parts`: by `paths`, None where there is no adapter. Raises NotHeld."""
    there = [part for part in parts if part is not None]
    first = there[0]
    if any(part.method != first.method or part.method not in _CUT for part in there):
        raise NotHeld(f"has {first.method} on {', '.join(part.paths[0] for part in there)}, which is one layer there: only LoRA joins")
    if first.method == "dora" and len(there) < len(parts):
        raise NotHeld(f"has DoRA on {first.paths[0]}, but not on all of {', '.join(paths)}, which are one layer there")
    outputs = [_num_outputs(part, path, first) for part, path in zip(parts, paths, strict=True)]
    if all(_is_same(part, first) for part in there):
        blocks = [
            torch.zeros(count, first.rank, dtype=_b(first).dtype) if part is None else _b(part)
            for part, count in zip(parts, outputs, strict=True)
        ]
        a, b, rank = first.tensors["A"], torch.cat(blocks), first.rank
    else:
        a = torch.cat([part.tensors["A"] for part in there])
        b, rank = _diagonal(parts, outputs, first), sum(part.rank for part in there)
    magnitudes = [part.tensors["magnitude"] for part in there if "magnitude" in part.tensors]
    more = {"magnitude": torch.cat(magnitudes)} if magnitudes else {}
    return replace(
        first,
        paths=tuple(paths),
        tensors={"A": a, "B": b.view(*b.shape, *[1] * (a.ndim - 2)), **more},
        rank=rank,
        alpha=first.scaling * rank,
    )


def _diagonal(parts: Sequence[Module | None], outputs: Sequence[int], first: Module) -> Tensor:
    """Where they are scaled differently, the difference goes into B."""
    dtype = _b(first).dtype
    return block_diag(
        *(
            torch.zeros(count, 0, dtype=dtype) if part is None else _b(part) * (part.scaling / first.scaling)
            for part, count in zip(parts, outputs, strict=True)
        )
    ).to(dtype)


def _b(part: Module) -> Tensor:
    return part.tensors["B"].flatten(1)


def _is_same(part: Module, first: Module) -> bool:
    return part.scaling == first.scaling and torch.equal(part.tensors["A"], first.tensors["A"])


def _num_outputs(part: Module | None, path: str, beside: Module) -> int:
    """Of a layer without an adapter, as the published models have them: as many as it has inputs, and an MLP's more."""
    if part is not None:
        return len(part.tensors["B"])
    width = beside.tensors["A"].shape[1]
    return width * _MLP if path.endswith("proj_mlp") else width


def _slices(module: Module) -> list[slice]:
    """Each but the last is as wide as it has inputs, or they are all alike."""
    outputs, inputs, count = len(module.tensors["B"]), module.tensors["A"].shape[1], len(module.paths)
    each = outputs // count if outputs % count == 0 and not module.paths[-1].endswith("proj_mlp") else inputs
    stops = [each * (number + 1) for number in range(count - 1)] + [outputs]
    return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _own(b: Tensor, number: int, count: int) -> Tensor | None:
    """The rows of A that are this part's own, where all have equally many; None: others are not nothing, so that all are needed."""
    rank = b.shape[1]
    if rank % count:
        return None
    each = rank // count
    others = torch.ones(rank, dtype=torch.bool)
    others[number * each : (number + 1) * each] = False
    return None if b[:, others].any() else torch.arange(number * each, (number + 1) * each)


def _by_columns(blocks: Sequence[Tensor]) -> list[Tensor | None]:
    """The same where they have not: by the columns that are not nothing, if no two parts share one."""
    used = [block.flatten(2).any(2).any(0) if block.ndim > 2 else block.any(0) for block in blocks]
    if int(sum(int(columns.sum()) for columns in used)) > int(torch.stack(used).any(0).sum()):
        return [None] * len(blocks)
    return [columns.nonzero().flatten() for columns in used]


def _magnitude(module: Module, at: slice) -> Mapping[str, Tensor]:
    return {"magnitude": module.tensors["magnitude"][at]} if "magnitude" in module.tensors else {}
