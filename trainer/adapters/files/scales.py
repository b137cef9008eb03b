"""What adapters are scaled by: alpha as each format tells it, or as PEFT's config does. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt

from pydantic import JsonValue
from torch import Tensor

from lorafleet.catalog.method import is_target
from trainer.adapters.files.contents import Module
from trainer.adapters.files.sources import Config, Source, json_of

DIFFUSERS_METADATA = "lora_adapter_metadata"
SCALING = "lorafleet.scaling"  # of a diffusers' file: what B was multiplied by, a power of two, by module


def scaled(module: Module, tensors: Mapping[str, Tensor], config: Config) -> Module:
    """With its alpha: the file's own, what the config says, or the rank."""
    if module.method == "lokr" and {"w1", "w2"} <= tensors.keys():
        return replace(module, alpha=float(module.rank))  # LyCORIS scales whole factors by nothing
    if "alpha" in tensors:
        return replace(module, alpha=float(tensors["alpha"].flatten()[0]))
    if not config:
        return replace(module, alpha=0.0 if module.method == "oft" else float(module.rank))
    said = _by_pattern(config.get("alpha_pattern"), module.path, config.get("lora_alpha", config.get("alpha")))
    alpha = _number(said, module.rank)
    return replace(module, alpha=alpha * sqrt(module.rank) if config.get("use_rslora") is True else alpha)


def said_of_parts(source: Source, metadata: Mapping[str, str]) -> Config:
    """What diffusers' metadata say, by part and key of PEFT's config."""
    if DIFFUSERS_METADATA not in metadata:
        return {}
    return json_of(f"{source.name}: {DIFFUSERS_METADATA}", metadata[DIFFUSERS_METADATA].encode())


def config_of(source: Source, said: Config, part: str) -> Config:
    """PEFT's config of a part: of its folder, or in what is said of all parts."""
    if source.config is not None:
        return source.config
    return {key.removeprefix(f"{part}."): value for key, value in said.items() if key.startswith(f"{part}.")}


def folded(source: Source, metadata: Mapping[str, str]) -> Config:
    """What was put into the weights, by module."""
    return json_of(f"{source.name}: {SCALING}", metadata[SCALING].encode()) if SCALING in metadata else {}


def unfolded(module: Module, name: str, scales: Config) -> Module:
    """With that taken out again."""
    scale = _number(scales.get(name), 1.0)
    if scale in (0.0, 1.0):
        return module
    return replace(module, tensors={**module.tensors, "B": module.tensors["B"] / scale}, alpha=scale * module.alpha)


def _number(value: JsonValue, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float(otherwise)


def _by_pattern(patterns: JsonValue, path: str, otherwise: JsonValue) -> JsonValue:
    """What PEFT's pattern of this module says. Its names are ends of paths here, not regular expressions."""
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if is_target(path, [pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")]):
            return value
    return otherwise
