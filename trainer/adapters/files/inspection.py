"""What an adapter file is, in plain values: format, family, method, ranks, targets, scales, norms, and who can load it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

from lorafleet import adapter_readers
from lorafleet.catalog import FAMILIES
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.updates import size

_LISTS = (
    *("down_blocks", "up_blocks", "transformer_blocks", "single_transformer_blocks", "layers", "block"),
    *("noise_refiner", "context_refiner", "layerwise_blocks", "refiner_blocks"),
)
_IN_LISTS = re.compile(r"(?:[a-z_]*(?:blocks|block|layers|layer|refiner|attentions|resnets|encoder|text_model|text_fusion)\.(?:\d+\.)?)+")
_ATTENTIONS = ("attn", "attn1", "attn2", "attention", "self_attn")


def inspected(adapter: AdapterFile, size_bytes: int) -> dict[str, Any]:
    """As JSON has it. Norms are those of the updates as they are applied: of DoRA its low-rank part, of OFT how far it turns."""
    sizes = {module.paths: size(module) for module in adapter.modules}
    tensors = [tensor for module in adapter.modules for tensor in module.tensors.values()]
    return {
        "format": adapter.format,
        "families": list(adapter.families),
        "methods": list(adapter.methods),
        "num_modules": len(adapter.modules),
        "num_parameters": sum(tensor.numel() for tensor in tensors),
        "size_bytes": size_bytes,
        "dtypes": list(adapter.dtypes),
        "ranks": _counts(module.rank for module in adapter.modules),
        "alphas": _counts(module.alpha for module in adapter.modules),
        "scales": _counts(module.scaling for module in adapter.modules if module.method != "oft"),
        "targets": _counts(_target(module) for module in adapter.modules),
        "norm": _norm(sizes.values()),
        "parts": [_part(part, [each for each in adapter.modules if each.part == part], sizes) for part in _parts(adapter)],
        "readers": [each.plain() for each in readers(adapter)],
        "metadata": dict(sorted(adapter.metadata.items())),
    }


def readers(adapter: AdapterFile) -> list[adapter_readers.Verdict]:
    facts = FAMILIES.get(adapter.family)
    has_inputs = any(module.tensors["magnitude"].ndim > 1 for module in adapter.modules if "magnitude" in module.tensors)
    return adapter_readers.of_file(facts, adapter.format, adapter.methods, has_input_magnitudes=has_inputs)


def _parts(adapter: AdapterFile) -> list[str]:
    return sorted({module.part for module in adapter.modules}, key=lambda part: ("text" in part, part))


def _part(part: str, modules: Sequence[Module], sizes: Mapping[tuple[str, ...], float]) -> dict[str, Any]:
    blocks: dict[str, list[float]] = {}
    for module in modules:
        blocks.setdefault(_block(module), []).append(sizes[module.paths])
    return {
        "part": part,
        "num_modules": len(modules),
        "norm": _norm(sizes[module.paths] for module in modules),
        "blocks": [
            {"block": block, "num_modules": len(found), "norm": _norm(found)} for block, found in sorted(blocks.items(), key=_in_order)
        ],
    }


def _in_order(item: tuple[str, object]) -> list[tuple[str, int]]:
    """Numbers by their size."""
    return [(word, -1) if not word.isdecimal() else ("", int(word)) for word in item[0].split(".")]


def _block(module: Module) -> str:
    """The block of its module: a list's name and number, or what stands before the layer."""
    words = module.path.split(".")
    if words[0] == "mid_block":
        return words[0]
    at = next((place for place, word in enumerate(words) if word in _LISTS and place + 1 < len(words)), None)
    if at is not None:
        return ".".join(words[: at + 2])
    numbered = next((place for place, word in enumerate(words) if word.isdecimal()), None)
    return ".".join(words[: numbered + 1]) if numbered is not None and module.part.startswith("text") else words[0]


def _target(module: Module) -> str:
    """What kind of layer it is: its path without the blocks that it is in."""
    words = _IN_LISTS.sub("", module.path).split(".")
    return ".".join(words[1:] if words[0] in _ATTENTIONS and len(words) > 1 else words)


def _norm(sizes: Iterable[float]) -> float:
    return sqrt(sum(value * value for value in sizes))


def _counts(values: Iterable[Any]) -> list[dict[str, Any]]:
    """Each value and how many modules have it, the most frequent first."""
    counted = Counter(values)
    return [{"value": value, "num_modules": number} for value, number in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]
