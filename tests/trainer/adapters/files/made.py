"""Small adapters on modules of every family, with numbers drawn here, and their files by the writers of trained adapters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lorafleet import spec
from lorafleet.catalog import FAMILIES, file_names
from lorafleet.catalog.part import Layers
from lorafleet.spec import Spec
from trainer.adapters.files import reading
from trainer.adapters.files.contents import AdapterFile
from trainer.adapters.files.sources import WEIGHTS, Source, in_parts
from trainer.adapters.formats.diffusers import diffusers_file
from trainer.adapters.formats.kohya import kohya_file

WIDTH, RANK = 8, 2
TEXT = {"sd1": ("text_encoder",), "sd2": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2"), "flux": ("text_encoder",)}
UNET = (
    *(f"down_blocks.1.attentions.{number}.transformer_blocks.0.attn2.{to}" for number in (0, 1) for to in ("to_q", "to_k", "to_out.0")),
    *("mid_block.attentions.0.proj_in", "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj"),
    *("up_blocks.1.resnets.0.conv1", "up_blocks.1.upsamplers.0.conv", "time_embedding.linear_1", "down_blocks.1.resnets.1.conv_shortcut"),
)
_NO_LAYERS = ("norm_q", "norm_k", "norm_added_q", "norm_added_k", "norm1", "norm2", "txt_norm", "cap_embedder.0")
FAMILY_NAMES = tuple(name for name in FAMILIES.names() if file_names.of(name) is not None)


def modules(family: str) -> list[str]:
    """Of the denoiser: those around its blocks, and those of some blocks."""
    names = file_names.of(family)
    assert names is not None
    if FAMILIES.get(family).denoiser.name == "unet":
        return list(UNET)
    numbered = [module for module in names.modules if not set(module.split(".")) & {str(number) for number in (1, *range(3, 64))}]
    return sorted(module for module in numbered if not module.endswith(_NO_LAYERS) and ".norms" not in module)


def num_outputs(module: str) -> int:
    if module.endswith(("proj_mlp", "ff.net.0.proj")):
        return 4 * WIDTH
    return 2 * WIDTH if module.endswith("norm_out.linear") else WIDTH


def shapes(module: str, rank: int = RANK) -> tuple[tuple[int, ...], tuple[int, ...]]:
    is_convolution = (".resnets." in module and "time_emb" not in module) or module.endswith("samplers.0.conv")
    kernel = () if not is_convolution else (1, 1) if module.endswith("conv_shortcut") else (3, 3)
    return (rank, WIDTH, *kernel), (num_outputs(module), rank, *[1] * len(kernel))


def weights(family: str, method: str = "lora", rank: int = RANK, only: Sequence[str] | None = None) -> dict[str, Tensor]:
    """By the trainer's names."""
    draws = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=draws) for name, shape in _shapes(family, method, rank, only)}


def _shapes(family: str, method: str, rank: int, only: Sequence[str] | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    facts = FAMILIES.get(family)
    texts = [
        f"{part}.{file_names.our_text(facts.part(part), 'encoder.layers.1.self_attn.' + name)}"
        for part in TEXT.get(family, ())
        for name in ("q_proj", "out_proj")
    ]
    for path in [
        *(f"{facts.denoiser.name}.{module}" for module in (modules(family) if only is None else only)),
        *(texts if only is None else ()),
    ]:
        a, b = shapes(path, rank)
        yield f"{path}.lora_A.weight", a
        yield f"{path}.lora_B.weight", b
        if method == "dora":
            yield f"{path}.lora_magnitude_vector", b[:1]


def asked(family: str, **adapter: Any) -> Spec:
    given = {"rank": RANK, "alpha": 3.0, "text_encoder": family in TEXT, "target_modules": ["to_q"], **adapter}
    base = {"uri": "file:///base", "family": family}
    return spec.parse({"base_model": base, "dataset": {"uri": "file:///data"}, "adapter": given, "output": {"precision": "fp32"}})


def layers(family: str) -> Layers:
    names = file_names.of(family)
    assert names is not None
    return Layers(names.kohya, {module: num_outputs(module) for module in names.kohya})


def kohya(family: str, found: Mapping[str, Tensor], **adapter: Any) -> bytes:
    facts = FAMILIES.get(family)
    said = {"modelspec.architecture": f"{facts.architecture}/lora"}
    renamed = layers(family) if facts.kohya_modules else Layers()
    return kohya_file(found, asked(family, **adapter), said, "fp32", layers=renamed)


def diffusers(family: str, found: Mapping[str, Tensor], **adapter: Any) -> bytes:
    return diffusers_file(found, asked(family, **adapter), "fp32")


def read(data: bytes, family: str | None = None) -> AdapterFile:
    return reading.read([Source("lora.safetensors", data)], family)


def read_files(files: Mapping[str, bytes], family: str | None = None) -> AdapterFile:
    """As a format has them: PEFT's in a folder."""
    return reading.read(in_parts(files), family) if WEIGHTS in files else read(files[""], family)


def named(adapter: AdapterFile) -> dict[str, Tensor]:
    """Its tensors by the trainer's names."""
    ends = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
    return {f"{module.paths[0]}.{ends[role]}": tensor for module in adapter.modules for role, tensor in module.tensors.items()}


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """To the last bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
