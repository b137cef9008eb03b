"""Reads adapter files, ours and others': kohya's, diffusers', PEFT's folders, ComfyUI's, with LyCORIS's methods. Says what is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from lorafleet.adapter_files import detection, keys, layers
from lorafleet.adapter_files.keys import Key
from lorafleet.catalog import FAMILIES
from lorafleet.catalog.method import is_target
from trainer.adapters.files import scales, sources
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.fused import cut
from trainer.adapters.files.sources import Source, Unreadable, some

_SIDES = (("B", "A"), ("w1_a", "w1_b"))  # roles whose rows are a layer's outputs, and whose columns its inputs
_OF_OUTPUTS = ("B", "magnitude", "w1_a", "w2_a", "blocks")


@dataclass
class _Layer:
    """One layer of a file, as it lies there."""

    source: Source
    place: str
    name: str
    method: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # by role, alpha among them

    @property
    def found(self) -> detection.Found:
        """Its part is said by its folder, if not by its name."""
        role = next((role for role in ("A", "w1_b") if role in self.tensors), None)
        return detection.Found(self.place or self.source.part, self.name, 0 if role is None else prod(self.tensors[role].shape[1:2]))


def read_path(path: Path, family: str | None = None) -> AdapterFile:
    """A file, or a folder of PEFT's. `family`: that it is said to be of. Raises Unreadable, OSError."""
    return read(sources.of_path(path), family)


def read(given: Sequence[Source], family: str | None = None) -> AdapterFile:
    """The parts of one adapter. Raises Unreadable."""
    metadata: dict[str, str] = {}
    found: dict[tuple[str, str, str], _Layer] = {}
    formats: dict[str, str] = {}
    for source in given:
        tensors, said = sources.tensors(source)
        metadata |= said
        for name, key in _keys(source, tensors).items():
            formats.setdefault(key.format, name)
            layer = found.setdefault((source.name, key.place, key.module), _Layer(source, key.place, key.module))
            layer.tensors[key.role] = tensors[name]
            if key.method and layer.method not in ("", key.method):
                raise Unreadable(f"{source.name}: {key.module} has tensors of {layer.method} and of {key.method}")
            layer.method = key.method or layer.method
    if len(formats) > 1:
        both = ", ".join(f"{name} ({format})" for format, name in sorted(formats.items()))
        raise Unreadable(f"{given[0].name} has names of several formats: {both}")
    return _adapter(next(iter(formats)), list(found.values()), metadata, family)


def _adapter(format: str, all_of_it: Sequence[_Layer], metadata: Mapping[str, str], family: str | None) -> AdapterFile:
    for layer in all_of_it:
        _check(layer)
    found = [layer.found for layer in all_of_it]
    fitting = detection.likeliest(_fitting(all_of_it[0].source.name, format, found, family), found, metadata)
    folded, said = scales.folded(all_of_it[0].source, metadata), scales.said_of_parts(all_of_it[0].source, metadata)
    modules: list[Module] = []
    for layer, each in zip(all_of_it, found, strict=True):
        paths = fitting[0].modules[each.place, each.module]
        config = scales.config_of(layer.source, said, paths[0].partition(".")[0])
        module = scales.unfolded(scales.scaled(_module(format, layer, paths), layer.tensors, config), f"{layer.place}.{layer.name}", folded)
        modules += cut(
            with_halves_exchanged(module) if format in ("kohya", "comfyui") and is_swapped(module, fitting[0].family) else module
        )
    return AdapterFile(
        format=format,
        families=tuple(each.family for each in fitting),
        modules=tuple(sorted(modules, key=lambda module: module.paths)),
        metadata=metadata,
        num_layers=fitting[0].num_layers,
    )


def _fitting(origin: str, format: str, found: Sequence[detection.Found], family: str | None) -> list[detection.Fit]:
    if fitting := detection.fits(format, found, [family] if family else FAMILIES.names()):
        return fitting
    others = detection.fits(format, found, FAMILIES.names())
    if family and others:
        raise Unreadable(f"{origin} is no adapter of {family}: its modules are those of {' or '.join(fit.family for fit in others)}")
    raise Unreadable(f"{origin} has modules of no known family, such as {detection.unknown(format, found)} ({format})")


def _keys(source: Source, tensors: Mapping[str, Tensor]) -> dict[str, Key]:
    found = {name: key for name in tensors if (key := keys.parse(name)) is not None}
    if unknown := sorted(name for name in tensors if name not in found):
        why = next((what for end, what in keys.NOT_READ.items() if unknown[0].endswith(end)), "no name of an adapter's tensors")
        raise Unreadable(f"{source.name}: {some(unknown)}: {why}")
    return found


# One layer


def _check(layer: _Layer) -> None:
    """Its tensors belong together. Raises Unreadable."""
    where, tensors = f"{layer.source.name}: {layer.name}", layer.tensors
    if missing := layers.missing(layer.method, tensors):
        raise Unreadable(f"{where} is half an adapter: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if empty := [role for role, tensor in tensors.items() if not tensor.numel()]:
        raise Unreadable(f"{where} has rank 0: {empty[0]} is {list(tensors[empty[0]].shape)}")
    if layer.method == "lora" and layers.differs(_shapes(tensors)):
        shapes = f"{list(tensors['A'].shape)} and {list(tensors['B'].shape)}"
        raise Unreadable(f"{where} has A and B that do not fit, {shapes}: A's outputs are not B's inputs")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {role: tuple(tensor.shape) for role, tensor in tensors.items()}


def _module(format: str, layer: _Layer, paths: tuple[str, ...]) -> Module:
    """Without its alpha yet; with a magnitude for each output as a plain row of them. One for each input stays as it is."""
    found = {role: tensor for role, tensor in layer.tensors.items() if role != "alpha"}
    method = layer.method
    if "magnitude" in found:
        magnitude, method = found["magnitude"], "dora" if method == "lora" else method
        is_by_outputs = "B" in found and magnitude.shape[0] == len(found["B"]) == magnitude.numel()
        found["magnitude"] = magnitude.flatten() if is_by_outputs or format in ("diffusers", "peft") else magnitude
    return Module(paths=paths, method=method, tensors=found, rank=layers.rank(layer.method, _shapes(layer.tensors)), alpha=0.0)


def is_swapped(module: Module, family: str) -> bool:
    """Whether the halves of its outputs lie the other way round in the published code: it gives a shift and a scale, twice as many
    outputs as it has inputs. OFT's tensors do not say that, so of it only the layer that always is such a one."""
    facts, tensors = FAMILIES.get(family), module.tensors
    if module.part != facts.denoiser.name:
        return False
    if module.method == "oft":
        return is_target(module.path, facts.kohya_swapped([]))
    rows, inputs = next(((b, a) for b, a in _SIDES if a in tensors and b in tensors), ("", ""))
    has_halves = bool(rows) and len(tensors[rows]) == 2 * tensors[inputs].shape[1]
    return has_halves and is_target(module.path, facts.kohya_swapped([module.path]))


def with_halves_exchanged(module: Module) -> Module:
    """OFT's blocks change places where they stay whole."""
    rows = {role: tensor for role, tensor in module.tensors.items() if role in _OF_OUTPUTS and len(tensor) % 2 == 0}
    return module.with_tensors({**module.tensors, **{role: torch.roll(tensor, len(tensor) // 2, 0) for role, tensor in rows.items()}})
