"""Turns a checkpoint in one file into the parts that diffusers' folders have: a UNet, an autoencoder and OpenCLIP by diffusers' own
converters, a transformer by the rows that its family's tables name, for diffusers' would hold it twice. What the file has is checked
against the part's config first: a tensor that is missing, or of another size, is named.

The tensors of a file are its own pages, and so are parts of them: nothing is copied until it is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils
from torch import Tensor

from lorafleet.catalog.original import Rows
from lorafleet.catalog.part import Part
from trainer.untrusted import Refused

_ldm: Any = single_file_utils  # its converters have no types
_EMA = "model_ema."
_TEXT = "text_model."
_PROJECTION = "text_projection.weight"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a part lies in a file."""

    file: Any  # of safetensors, open
    prefix: str  # of its tensors' names
    names: tuple[str, ...]  # of all tensors of the file
    rows: Mapping[str, Rows] | None = None  # of a transformer

    def tensor(self, name: str) -> Tensor:
        return self.file.get_tensor(name)

    def own(self) -> dict[str, Tensor]:
        """The part's tensors, without the prefix."""
        return {name.removeprefix(self.prefix): self.tensor(name) for name in self.names if name.startswith(self.prefix)}


def converted(part: Part, config: Mapping[str, Any], source: Source) -> dict[str, Tensor]:
    """The tensors of that part by the names in diffusers' folders. Raises Refused."""
    kind = part.classes[0]
    expected = _expected(kind, config)
    found = {name.removeprefix(_TEXT): tensor for name, tensor in _found(kind, config, source).items()}
    names = {name.removeprefix(_TEXT): name for name in expected}
    if missing := sorted(names.keys() - found.keys()):
        raise Refused(f"lacks {len(missing)} tensors of its {part.name}, such as {names[missing[0]]}")
    if other := [name for name, whole in names.items() if found[name].shape != expected[whole]]:
        shapes = f"{tuple(found[other[0]].shape)}, not {tuple(expected[names[other[0]]])}"
        raise Refused(f"has a {part.name} of another size: {names[other[0]]} is {shapes}")
    return {whole: found[name].contiguous() for name, whole in names.items()}


def _found(kind: str, config: Mapping[str, Any], source: Source) -> Tensors:
    if source.rows is not None:
        return {name: _taken(rows, source) for name, rows in source.rows.items()}
    return _CONVERTERS.get(kind, _as_it_is)(source, config)


def _taken(rows: Rows, source: Source) -> Tensor:
    name = f"{source.prefix}{rows.source}"
    if not rows.ranges:
        return source.tensor(name)
    pieces = [source.file.get_slice(name)[start:stop] for start, stop in rows.ranges]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _expected(kind: str, config: Mapping[str, Any]) -> dict[str, torch.Size]:
    """By name the shapes of what a folder's weights hold; tensors that are others' under a second name are in no file."""
    fields = {name: value for name, value in config.items() if name != "_class_name"}
    with torch.device("meta"):
        model = _built(kind, fields)
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    return {name: tensor.shape for name, tensor in model.state_dict().items() if name not in tied}


def _built(kind: str, fields: Mapping[str, Any]) -> Any:
    if (built := getattr(diffusers, kind, None)) is not None:
        return built(**fields)
    of_transformers = getattr(transformers, kind)
    return of_transformers(of_transformers.config_class(**fields))


def _unet(source: Source, config: Mapping[str, Any]) -> Tensors:
    named = {name: source.tensor(name) for name in source.names if name.startswith((source.prefix, _EMA))}
    return _ldm.convert_ldm_unet_checkpoint(_averaged(named, source.prefix), config)


def _averaged(checkpoint: Tensors, prefix: str) -> dict[str, Tensor]:
    """Of a file that holds the UNet twice, the exponential moving average; its names there have lost their dots."""
    flat = {name: f"{_EMA}{name.removeprefix('model.').replace('.', '')}" for name in checkpoint if name.startswith(prefix)}
    return {name: checkpoint[flat.get(name, name)] if flat.get(name) in checkpoint else tensor for name, tensor in checkpoint.items()}


def _autoencoder(source: Source, config: Mapping[str, Any]) -> Tensors:
    return _ldm.convert_ldm_vae_checkpoint(source.own(), config)


def _text(source: Source, config: Mapping[str, Any]) -> Tensors:
    """CLIP's as transformers names it, or OpenCLIP's. Stability's files of Stable Diffusion 3 have no projection of CLIP-L's pooled text,
    for it is one that changes nothing (diffusers' create_diffusers_clip_model_from_ldm)."""
    if source.prefix.endswith("transformer."):
        tensors = source.own()
        embedding = tensors.get(f"{_TEXT}embeddings.token_embedding.weight")
        if _PROJECTION not in tensors and embedding is not None:
            tensors[_PROJECTION] = torch.eye(embedding.shape[-1], dtype=embedding.dtype)
        return tensors
    like = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    return _ldm.convert_open_clip_checkpoint(like, {name: source.tensor(name) for name in source.names}, prefix=source.prefix)


def _as_it_is(source: Source, config: Mapping[str, Any]) -> Tensors:
    return source.own()


_CONVERTERS: Mapping[str, Callable[[Source, Mapping[str, Any]], Tensors]] = {
    "UNet2DConditionModel": _unet,
    "AutoencoderKL": _autoencoder,
    "CLIPTextModel": _text,
    "CLIPTextModelWithProjection": _text,
}
