"""An adapter file as the layers of a base compute with it: for each layer what one of our methods takes, in the layer's own shapes."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from lorafleet.catalog import METHODS
from trainer.adapters.files import updates
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.sources import Source
from trainer.adapters.layout import Layer, weight_shape
from trainer.typed_torch import vector_norm

ADDED = ("lora", "loha", "lokr")  # methods whose update is the same whatever else is added
_CORES = ("mid", "t1", "t2", "rescale")  # roles that our own methods have not


@dataclass(frozen=True)
class Term:
    """What an adapter does on one layer. `scaling`: at weight 1; a weight multiplies it, but of OFT what the turning adds."""

    method: str
    tensors: Mapping[str, Tensor]  # by role, fp32, as the method's facts say for this layer
    scaling: float

    @property
    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple((role, tuple(tensor.shape)) for role, tensor in self.tensors.items())


@dataclass(frozen=True)
class Adapter:
    """`terms`: by canonical path of a layer."""

    digest: str
    terms: Mapping[str, Term]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for term in self.terms.values() for tensor in term.tensors.values())


def digest_of(given: Sequence[Source]) -> str:
    """SHA-256: a file's own; of several their names and digests."""
    digests = [hashlib.sha256(source.data).hexdigest() for source in given]
    if len(digests) == 1:
        return digests[0]
    lines = sorted(f"{source.name}\0{digest}\n" for source, digest in zip(given, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def misfits(file: AdapterFile, layers: Mapping[str, Layer], name: str) -> Iterator[str]:
    """What of a file does not fit a base's layers, the first of each kind."""
    there = [module for module in file.modules if all(path in layers for path in module.paths)]
    if len(there) < len(file.modules):
        missing = [path for module in file.modules for path in module.paths if path not in layers]
        yield f"{name} has {len(missing)} modules that this base has not, such as {missing[0]}"
    for module in there:
        if problem := _misfit(module, [layers[path] for path in module.paths]):
            yield f"{name} is of a base of other shapes: {problem}"
            return


def prepared(file: AdapterFile, digest: str, layers: Mapping[str, Layer]) -> Adapter:
    """Of a file that fits these layers."""
    return Adapter(digest, {path: term for module in file.modules for path, term in _terms(module, layers)})


def adds_nothing(file: AdapterFile) -> bool:
    """Whether all of its updates are zero, as far as the file alone tells; of DoRA its magnitudes may still change something."""
    return all(module.method != "dora" and updates.size(module) == 0 for module in file.modules)


# One module


def _misfit(module: Module, layers: Sequence[Layer]) -> str:
    """How it does not fit; nothing: it does."""
    shapes = [weight_shape(layer) for layer in layers]
    outputs, inputs = sum(shape[0] for shape in shapes), prod(shapes[0][1:])
    found = _sides(module)
    if found is None or (found[0] in (None, outputs) and found[1] in (None, inputs, shapes[0][1])):
        return ""
    told = [str(side) if side is not None else "any" for side in found]
    return f"{module.paths[0]} has {outputs} outputs and {inputs} inputs here, and {told[0]} and {told[1]} in the file"


def _sides(module: Module) -> tuple[int | None, int | None] | None:
    """(outputs, inputs with their kernel or, of a factored kernel, without) as its tensors tell; None: they do not."""
    of = module.tensors
    match module.method:
        case "lora" | "dora":
            return len(of["B"]), of["A"].shape[1] if "mid" in of else prod(of["A"].shape[1:])
        case "loha":
            return (None, None) if "t1" in of else (len(of["w1_a"]), prod(of["w1_b"].shape[1:]))
        case "oft":
            return of["blocks"].shape[:2].numel(), None
        case "lokr" if "t2" not in of:
            rows, columns = _factor(of, "w1").shape
            second = of["w2"].shape if "w2" in of else (len(of["w2_a"]), *of["w2_b"].shape[1:])
            return rows * second[0], columns * prod(second[1:])
        case _:
            return None


def _terms(module: Module, layers: Mapping[str, Layer]) -> Iterator[tuple[str, Term]]:
    its = [layers[path] for path in module.paths]
    if len(its) == 1 and (term := _own(module, its[0])) is not None:
        yield module.paths[0], term
        return
    weight = torch.cat([layer.weight.detach().flatten(1) for layer in its]).float()
    whole = weight.view(len(weight), *weight_shape(its[0])[1:])
    rows = torch.split_with_sizes(updates.update(module, whole).float(), [weight_shape(layer)[0] for layer in its])
    for path, layer, update in zip(module.paths, its, rows, strict=True):
        yield path, _whole(update, layer)


def _own(module: Module, layer: Layer) -> Term | None:
    """As its own method computes it; None: that has not all that the file has."""
    if any(role in module.tensors for role in _CORES) or _is_by_inputs(module):
        return None
    of = {role: tensor.detach().float() for role, tensor in module.tensors.items()}
    if module.method == "oft":
        return Term("oft", {"blocks": _held(of["blocks"], module.alpha)}, 1.0)
    if module.method == "lokr":
        of = {"w1": _factor(of, "w1"), **{role: tensor for role, tensor in of.items() if not role.startswith("w1")}}
        return Term("lokr", {role: _with_kernel(role, tensor, of, layer) for role, tensor in of.items()}, module.scaling)
    shapes = METHODS.get(module.method).tensors(module.rank, weight_shape(layer))
    return Term(module.method, {role: of[role].reshape(shape) for role, shape in shapes.items()}, module.scaling)


def _is_by_inputs(module: Module) -> bool:
    return "magnitude" in module.tensors and module.tensors["magnitude"].ndim > 1


def _whole(update: Tensor, layer: Layer) -> Term:
    """An update that no method of ours has factors for: A is all of it. Its weight scales it, as ComfyUI's does."""
    outputs, *inputs = weight_shape(layer)
    b = torch.eye(outputs).view(outputs, outputs, *[1] * (len(inputs) - 1))
    return Term("lora", {"A": update.view(outputs, *inputs), "B": b}, 1.0)


def _factor(of: Mapping[str, Tensor], name: str) -> Tensor:
    return of[name] if name in of else of[f"{name}_a"] @ of[f"{name}_b"]


def _with_kernel(role: str, tensor: Tensor, of: Mapping[str, Tensor], layer: Layer) -> Tensor:
    """Of LoKr's second factor what sees the inputs has the layer's kernel."""
    if role not in ("w2", "w2_b"):
        return tensor
    _, inputs, *kernel = weight_shape(layer)
    return tensor.reshape(len(tensor), inputs // of["w1"].shape[1], *kernel)


def _held(blocks: Tensor, most: float) -> Tensor:
    """Within the norm that LyCORIS holds its turning to, where that is positive."""
    length = float(vector_norm((blocks - blocks.mT).flatten(), dim=0)) + 1e-8
    return blocks * (most / length) if 0 < most < length else blocks


def with_weight(term: Term, weight: float) -> Term:
    return term if term.method == "oft" else replace(term, scaling=term.scaling * weight)
