"""An adapter out of a base that was trained whole: the low-rank matrices that are nearest to what training changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lorafleet.catalog import FAMILIES, file_names
from lorafleet.catalog.family import Family
from lorafleet.errors import InvalidInput
from trainer.adapters.files import base_weights
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.singular import singular


@dataclass(frozen=True)
class Extracted:
    """`error`: the size of what the adapter leaves out of the changed layers, over the size of their change; `others`: tensors that
    changed and that no adapter sits on, such as biases and norms."""

    adapter: AdapterFile
    error: float
    others: tuple[str, ...]


def extract(tuned: Path, base: Path, family: str, *, rank: int, energy: float | None = None) -> Extracted:
    """The adapter of at most this rank, or in each layer of the least rank that keeps this share of the squares of singular values.

    `tuned`, `base`: folders in diffusers' layout. Raises InvalidInput where they are not of one kind, or where nothing changed.
    """
    facts = FAMILIES.get(family)
    modules: list[Module] = []
    others: list[str] = []
    left_out, whole = 0.0, 0.0
    for path, name, before, after in _changed(tuned, base, facts):
        if path is None:
            others.append(name)
            continue
        update = (after.double() - before.double()).flatten(1)
        exact = singular(update)
        kept = rank if energy is None else min(rank, exact.rank_for(energy))
        modules.append(exact.nearest(kept).as_module(path, before.shape[1:], torch.float32))
        left_out, whole = left_out + exact.beyond(kept) ** 2, whole + exact.size**2
    if not modules:
        raise InvalidInput(f"{tuned} has the weights of {base}: no layer that an adapter sits on differs")
    adapter = AdapterFile(format="kohya", families=(family,), modules=tuple(modules))
    return Extracted(adapter, (left_out / whole) ** 0.5, tuple(others))


def _changed(tuned: Path, base: Path, family: Family) -> Iterator[tuple[str | None, str, Tensor, Tensor]]:
    """(our name of the module, if adapters sit on it; the tensor's name; as it was; as it is)."""
    for part in (family.denoiser, *(part for part in family.text_encoders if part.target_modules)):
        now = {name: path for path in base_weights.weight_files(tuned, part.name) for name in _names(path)}
        for path in base_weights.weight_files(base, part.name):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  no mapping
                    if name not in now:
                        raise InvalidInput(f"{tuned} has no {part.name}/{name}, which {base} has: they are of different kinds")
                    before, after = file.get_tensor(name), _tensor(now[name], name)
                    if before.shape != after.shape:
                        shapes = f"{tuple(after.shape)} in {tuned}, but {tuple(before.shape)} in {base}"
                        raise InvalidInput(f"{part.name}/{name} is {shapes}: they are of different kinds")
                    if not torch.equal(before.double(), after.double()):
                        yield _our_module(family, part.name, name, before.ndim), f"{part.name}/{name}", before, after


def _our_module(family: Family, part: str, tensor: str, num_dimensions: int) -> str | None:
    """None: no adapter sits on it."""
    if num_dimensions not in (2, 4) or not tensor.endswith(".weight") or "embedding" in tensor.rpartition(".")[0].rpartition(".")[2]:
        return None
    path = tensor.removesuffix(".weight")
    if part == family.denoiser.name:
        names = file_names.of(family.name, attends=file_names.attending([path]))
        return f"{part}.{path}" if names is None or path in names.modules else None
    return f"{part}.{file_names.our_text(family.part(part), path)}"


def _names(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)
