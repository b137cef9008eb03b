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


def chroma(tensors: Collection[str]) -> Names:
    approximator = "distilled_guidance_layer"
    around: Names = {f"{approximator}.{each}": (f"{approximator}.{each}",) for each in ("in_proj", "out_proj")}
    for number in range(sum(name.startswith(f"{approximator}.norms.") for name in tensors)):
        layer = f"{approximator}.layers.{number}"
        around |= {f"{layer}.in_layer": (f"{layer}.linear_1",), f"{layer}.out_layer": (f"{layer}.linear_2",)}
        around[f"{approximator}.norms.{number}.scale"] = (f"{approximator}.norms.{number}",)
    ends: Names = {"img_in": ("x_embedder",), "txt_in": ("context_embedder",), "final_layer.linear": ("proj_out",)}
    double = {**_ATTENTION, **_MLPS}
    blocks = {"transformer_blocks": ("double_blocks", double), "single_transformer_blocks": ("single_blocks", _SINGLE)}
    return {**around, **ends, **_numbered(tensors, blocks)}


def flux2(tensors: Collection[str]) -> Names:
    around: Names = {
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        **{f"time_in.{layer}_layer": (f"time_guidance_embed.timestep_embedder.linear_{n}",) for layer, n in (("in", 1), ("out", 2))},
        **{f"{name}.lin": (f"{name}.linear",) for name in ("single_stream_modulation", *_STREAMS)},
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
        "final_layer.linear": ("proj_out",),
    }
    sides = {"img": "ff", "txt": "ff_context"}
    mlps = {f"{side}_mlp.{n}": (f"{ff}.linear_{end}",) for side, ff in sides.items() for n, end in ((0, "in"), (2, "out"))}
    single = {**{name: ours for name, ours in _SINGLE.items() if "norm" in name}}
    single |= {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}
    blocks = {"transformer_blocks": ("double_blocks", {**_ATTENTION, **mlps}), "single_transformer_blocks": ("single_blocks", single)}
    return {**around, **_numbered(tensors, blocks)}


_STREAMS = ("double_stream_modulation_img", "double_stream_modulation_txt")


def sd3(tensors: Collection[str]) -> Names:
    around: Names = {
        "x_embedder.proj": ("pos_embed.proj",),
        "context_embedder": ("context_embedder",),
        **{f"t_embedder.mlp.{n}": (f"time_text_embed.timestep_embedder.linear_{ours}",) for n, ours in ((0, 1), (2, 2))},
        **{f"y_embedder.mlp.{n}": (f"time_text_embed.text_embedder.linear_{ours}",) for n, ours in ((0, 1), (2, 2))},
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
        "final_layer.linear": ("proj_out",),
    }
    block = {f"x_block.{name}": ours for name, ours in _mmdit("", "norm1", "ff", ("to_q", "to_k", "to_v", "to_out.0")).items()}
    context = _mmdit("added_", "norm1_context", "ff_context", ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))
    block |= {f"context_block.{name}": ours for name, ours in context.items()}
    block |= {
        "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
        "x_block.attn2.proj": ("attn2.to_out.0",),
        "x_block.attn2.ln_q": ("attn2.norm_q",),
        "x_block.attn2.ln_k": ("attn2.norm_k",),
    }
    return {**around, **_numbered(tensors, {"transformer_blocks": ("joint_blocks", block)})}


def _mmdit(norm: str, modulation: str, mlp: str, attention: tuple[str, str, str, str]) -> Names:
    return {
        "attn.qkv": tuple(f"attn.{each}" for each in attention[:3]),
        "attn.proj": (f"attn.{attention[3]}",),
        "attn.ln_q": (f"attn.norm_{norm}q",),
        "attn.ln_k": (f"attn.norm_{norm}k",),
        "adaLN_modulation.1": (f"{modulation}.linear",),
        "mlp.fc1": (f"{mlp}.net.0.proj",),
        "mlp.fc2": (f"{mlp}.net.2",),
    }


def zimage(tensors: Collection[str]) -> Names:
    block: Names = {
        "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
        "attention.out": ("attention.to_out.0",),
        "attention.q_norm": ("attention.norm_q",),
        "attention.k_norm": ("attention.norm_k",),
        **{f"feed_forward.w{number}": (f"feed_forward.w{number}",) for number in (1, 2, 3)},
        **{f"{kind}_norm{number}": (f"{kind}_norm{number}",) for kind in ("attention", "ffn") for number in (1, 2)},
        "adaLN_modulation.0": ("adaLN_modulation.0",),
    }
    around: Names = {
        "x_embedder": ("all_x_embedder.2-1",),
        **{f"final_layer.{name}": (f"all_final_layer.2-1.{name}",) for name in ("linear", "adaLN_modulation.1")},
        **{name: (name,) for name in ("cap_embedder.0", "cap_embedder.1", "t_embedder.mlp.0", "t_embedder.mlp.2")},
    }
    return {**around, **_numbered(tensors, {kind: (kind, block) for kind in ("layers", "noise_refiner", "context_refiner")})}


def qwen_image(tensors: Collection[str]) -> Names:
    """It was published with diffusers' names."""
    return {name.rpartition(".")[0]: (name.rpartition(".")[0],) for name in tensors}


NAMES: dict[str, Callable[[Collection[str]], Names]] = {
    "flux": flux,
    "chroma": chroma,
    "flux2": flux2,
    "sd3": sd3,
    "zimage": zimage,
    "qwen_image": qwen_image,
}
ALONE: dict[str, dict[str, str]] = {  # tensors of ours that are of no module -> their names there
    "sd3": {"pos_embed.pos_embed": "pos_embed"},
    "zimage": {"x_pad_token": "x_pad_token", "cap_pad_token": "cap_pad_token"},
}
CONVERTERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "flux": ldm.convert_flux_transformer_checkpoint_to_diffusers,
    "chroma": ldm.convert_chroma_transformer_checkpoint_to_diffusers,
    "flux2": ldm.convert_flux2_transformer_checkpoint_to_diffusers,
    "sd3": ldm.convert_sd3_transformer_checkpoint_to_diffusers,
    "zimage": ldm.convert_z_image_transformer_checkpoint_to_diffusers,
}
# Of files with everything in one: our part -> what its tensors' names begin with.
_CLIP_L, _T5 = "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."
BESIDE: dict[str, dict[str, str]] = {
    "flux": {"vae": "vae.", "text_encoder": _CLIP_L, "text_encoder_2": _T5},
    "chroma": {"vae": "vae.", "text_encoder": _T5},
    "flux2": {},
    "sd3": {
        "vae": "first_stage_model.",
        "text_encoder": _CLIP_L,
        "text_encoder_2": "text_encoders.clip_g.transformer.",
        "text_encoder_3": _T5,
    },
    "zimage": {"vae": "vae.", "text_encoder": "text_encoders.qwen3_4b.transformer.model."},
    "qwen_image": {},
}


def swapped(family: str, tensors: Collection[str]) -> set[str]:
    """Of our modules those whose halves lie the other way round: of the end, and of the last block's text in MMDiT."""
    if family in ("flux", "flux2"):
        return {"norm_out.linear"}
    blocks = [int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks.")]
    return {"norm_out.linear", f"transformer_blocks.{max(blocks)}.norm1_context.linear"} if family == "sd3" else set()


def transformer(family: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A transformer's tensors by diffusers' names as they lie in the published layout."""
    found: dict[str, Tensor] = {}
    alone, odd = ALONE.get(family, {}), swapped(family, tensors)
    found |= {theirs: tensors[ours] for ours, theirs in alone.items()}
    left = set(tensors) - alone.keys()
    for theirs, ours in NAMES[family](tensors).items():
        for end in ("weight", "bias"):
            names = [f"{module}.{end}" for module in ours]
            if names[0] in tensors:
                left -= set(names)
                whole = torch.cat([tensors[name] for name in names])
                found[theirs if theirs.endswith(".scale") else f"{theirs}.{end}"] = _exchanged(whole) if ours[0] in odd else whole
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
