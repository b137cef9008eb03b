"""Writes a base in diffusers' folders as one file in the layout of the code that it was published with, by names written a second time.

A name there stands for our modules in the order in which their outputs lie in it. One that ends with `.scale` is a tensor of that name.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import torch
from diffusers.loaders import single_file_utils as ldm
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.trainer.prepare import single_files

Names = dict[str, tuple[str, ...]]

_ATTENTION = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.norm.query_norm.scale": ("attn.norm_q",),
    "img_attn.norm.key_norm.scale": ("attn.norm_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.norm.query_norm.scale": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm.scale": ("attn.norm_added_k",),
    "txt_attn.proj": ("attn.to_add_out",),
}
_MLPS = {
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_MODULATIONS = {"img_mod.lin": ("norm1.linear",), "txt_mod.lin": ("norm1_context.linear",)}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm.scale": ("attn.norm_q",),
    "norm.key_norm.scale": ("attn.norm_k",),
}


def _numbered(tensors: Collection[str], blocks: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]) -> Names:
    """`blocks`: our list of blocks -> its name there, and the modules in each."""
    found: Names = {}
    for ours, (theirs, names) in blocks.items():
        for number in sorted({int(name.removeprefix(f"{ours}.").partition(".")[0]) for name in tensors if name.startswith(f"{ours}.")}):
            found |= {f"{theirs}.{number}.{name}": tuple(f"{ours}.{number}.{each}" for each in modules) for name, modules in names.items()}
    return found


def flux(tensors: Collection[str]) -> Names:
    around = {
        f"{place}_in.{layer}_layer": (f"time_text_embed.{ours}_embedder.linear_{number}",)
        for place, ours in (("time", "timestep"), ("guidance", "guidance"), ("vector", "text"))
        for layer, number in (("in", 1), ("out", 2))
    }
    ends = {"final_layer.adaLN_modulation.1": ("norm_out.linear",), "final_layer.linear": ("proj_out",)}
    double, single = {**_ATTENTION, **_MLPS, **_MODULATIONS}, {**_SINGLE, "modulation.lin": ("norm.linear",)}
    blocks = {"transformer_blocks": ("double_blocks", double), "single_transformer_blocks": ("single_blocks", single)}
    return {"img_in": ("x_embedder",), "txt_in": ("context_embedder",), **around, **ends, **_numbered(tensors, blocks)}


NAMES: dict[str, Callable[[Collection[str]], Names]] = {"flux": flux}
SWAPPED: dict[str, tuple[str, ...]] = {"flux": ("norm_out.linear",)}
CONVERTERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {"flux": ldm.convert_flux_transformer_checkpoint_to_diffusers}
# Of files with everything in one: our part -> what its tensors' names begin with.
BESIDE: dict[str, dict[str, str]] = {
    "flux": {"vae": "vae.", "text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.t5xxl.transformer."},
}


def transformer(family: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A transformer's tensors by diffusers' names as they lie in the published layout."""
    found: dict[str, Tensor] = {}
    left = set(tensors)
    for theirs, ours in NAMES[family](tensors).items():
        for end in ("weight", "bias"):
            names = [f"{module}.{end}" for module in ours]
            if names[0] in tensors:
                left -= set(names)
                whole = torch.cat([tensors[name] for name in names])
                found[theirs if theirs.endswith(".scale") else f"{theirs}.{end}"] = (
                    _exchanged(whole) if ours[0] in SWAPPED[family] else whole
                )
    assert not left, left
    return found


def write(base: Path, family: str, to: Path, *, prefix: str, beside: Iterable[str] = ()) -> Path:
    """`beside`: the parts that lie in the file with the transformer."""
    tensors = {f"{prefix}{name}": tensor for name, tensor in transformer(family, weights(base / "transformer")).items()}
    for part in beside:
        start = BESIDE[family][part]
        tensors |= {f"{start}{name}": tensor for name, tensor in _part(base / part).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, to)
    return to


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def _part(folder: Path) -> dict[str, Tensor]:
    if folder.name == "vae":
        levels = len(json.loads((folder / "config.json").read_text())["block_out_channels"])
        return {name: tensor for each, whole in weights(folder).items() for name, tensor in [single_files.autoencoder(each, whole, levels)]}
    found = weights(folder)
    if any(name.startswith("embeddings.") for name in found):  # CLIP's, that transformers once had in a model of its own
        return {**{f"text_model.{name}": tensor for name, tensor in found.items()}}
    return found


def _exchanged(tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1])
