"""The adapter as diffusers' save_lora_weights writes it, with lora_adapter_metadata. From named fp32 tensors, without the model."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from lorafleet.adapter_files.detection import FAMILY_KEY
from lorafleet.spec import AdapterSpec, Spec
from trainer.adapters.formats.safetensors_file import file_bytes
from trainer.adapters.formats.tensors import by_module, file_of, stored
from trainer.adapters.methods import METHODS

NOTHING: Mapping[str, str] = MappingProxyType({})


def diffusers_file(weights: Mapping[str, Tensor], spec: Spec, precision: str = "fp32", *, more: Mapping[str, str] = NOTHING) -> bytes:
    """`weights`: by canonical name; `more`: of its metadata."""
    method, adapter = METHODS.get(spec.adapter.method), by_module(weights, spec.adapter)
    tensors = {
        f"{module}.{end}": tensor
        for module, roles in adapter.items()
        for end, tensor in method.for_diffusers(roles, file_of(spec.adapter.at(module), precision)).items()
    }
    if method.peft_config() is None:
        return file_bytes(stored(tensors, precision), {"format": "pt", **more})
    metadata: dict[str, object] = {}
    targets = spec.family.targets(spec.adapter.target_modules, text_encoders=spec.adapter.text_encoder)
    for part, modules in targets.items():
        ranks = {path.removeprefix(f"{part}."): spec.adapter.at(path).rank for path in adapter if path.startswith(f"{part}.")}
        if ranks:
            config = _peft_config(spec.adapter.at(part), _as_pefts(modules, part, weights), ranks)
            metadata |= {f"{part}.{key}": value for key, value in config.items()}
    described = {"format": "pt", FAMILY_KEY: spec.family.name, "lora_adapter_metadata": json.dumps(metadata, indent=2, sort_keys=True)}
    return file_bytes(stored(tensors, precision), {**described, **more})


def _as_pefts(modules: Sequence[str], part: str, weights: Mapping[str, Tensor]) -> list[str]:
    """PEFT knows ends of names, and no * in them: then all that were trained are named whole."""
    if not any("*" in name for name in modules):
        return list(modules)
    trained = (name.removeprefix(f"{part}.").rpartition(".lora_")[0] for name in weights if name.startswith(f"{part}."))
    return list(dict.fromkeys(trained))


def _peft_config(spec: AdapterSpec, target_modules: list[str], ranks: Mapping[str, int]) -> dict[str, object]:
    """`ranks`: of each layer, by its path in the part. The scaling is in B already, so that alpha is the rank."""
    others = {path: rank for path, rank in ranks.items() if rank != spec.rank}
    return {
        "peft_type": "LORA",
        "r": spec.rank,
        "lora_alpha": spec.rank,
        "target_modules": target_modules,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": others,
        "alpha_pattern": others,
        **(METHODS.get(spec.method).peft_config() or {}),
    }
