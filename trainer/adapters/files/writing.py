"""Writes adapters as kohya, diffusers, PEFT or ComfyUI have them. What a format cannot hold is refused; what was rounded is told.

Weights stay as they are, to the last bit: what they are scaled by is carried by alpha. Of diffusers' files some readers take no alpha:
there a power of two goes into B, which is as exact, and is noted so that reading gives the same alpha again.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import frexp
from typing import TypeVar

import torch
from torch import Tensor

from lorafleet.adapter_files import detection
from lorafleet.catalog import FAMILIES, file_names
from lorafleet.catalog.family import Family
from lorafleet.catalog.file_names import DenoiserNames
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.fused import NotHeld, joined
from trainer.adapters.files.reading import is_swapped, with_halves_exchanged
from trainer.adapters.files.scales import DIFFUSERS_METADATA, SCALING
from trainer.adapters.files.sources import CONFIG, WEIGHTS
from trainer.adapters.formats.safetensors_file import file_bytes, webui_hashes
from trainer.adapters.formats.tensors import DTYPES

N = TypeVar("N", int, float)

_LORA = ("lora", "dora")
_OWN_LAYERS = ("diffusers", "peft")  # formats whose layers are ours
_DROPPED = (DIFFUSERS_METADATA, SCALING, "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "format")
_ROLES = {
    "lora": {"A": "lora_down.weight", "B": "lora_up.weight", "mid": "lora_mid.weight", "magnitude": "dora_scale"},
    "loha": {role: f"hada_{role}" for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    "lokr": {role: f"lokr_{role}" for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    "oft": {"blocks": "oft_blocks", "rescale": "rescale"},
}
_PEFT_ROLES = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"}


@dataclass(frozen=True, kw_only=True)
class Written:
    """Files by name, "" for the only one; and what of the adapter is not as it was, a sentence each."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


@dataclass
class _Sheet:
    """What is being written."""

    precision: str | None
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    notes: dict[str, None] = field(default_factory=dict[str, None])

    def put(self, name: str, tensor: Tensor, *, whole: bool = False) -> None:
        """`whole`: magnitudes and alphas, which no format halves."""
        found = tensor if whole or self.precision is None else self._rounded(name, tensor, self.precision)
        self.tensors[name] = found.clone(memory_format=torch.contiguous_format)  # safetensors takes no two that share memory

    def note(self, sentence: str) -> None:
        self.notes[sentence] = None

    def _rounded(self, name: str, tensor: Tensor, precision: str) -> Tensor:
        found = tensor.to(DTYPES[precision])
        if not bool(found.isfinite().all()):
            raise NotHeld(f"has numbers in {name} that {precision} cannot hold; write it in bf16 or fp32")
        if not torch.equal(found.to(tensor.dtype), tensor):
            self.note(f"numbers are rounded to {precision}")
        return found


def write(adapter: AdapterFile, to: str, *, family: str | None = None, precision: str | None = None, fold: bool = False) -> Written:
    """`fold`: all of the scale into B, rounded where it is no power of two. Raises NotHeld."""
    facts, sheet = FAMILIES.get(family or adapter.family), _Sheet(precision)
    writers: Mapping[str, Callable[[], Mapping[str, bytes]]] = {
        "kohya": lambda: _kohya(adapter, facts, sheet),
        "comfyui": lambda: _comfyui(adapter, facts, sheet),
        "diffusers": lambda: _diffusers(adapter, facts, sheet, fold),
        "peft": lambda: _peft(adapter, facts, sheet),
    }
    _check(adapter, facts, to)
    files = writers[to]()
    return Written(files=files, notes=tuple(sheet.notes))


def _check(adapter: AdapterFile, family: Family, to: str) -> None:
    if to not in _OWN_LAYERS:
        return
    for module in adapter.modules:
        where, part = module.paths[0], family.part(module.part)
        if module.method not in _LORA:
            raise NotHeld(f"is {_title(module)} on {where}: files of {to} hold LoRA and DoRA alone")
        if len(module.paths) > 1:
            raise NotHeld(f"has {module.method} on {', '.join(module.paths)} as one layer, which are several there")
        if "magnitude" in module.tensors and module.tensors["magnitude"].ndim > 1:
            raise NotHeld(f"has DoRA on {where} with a magnitude for each input: {to}'s have one for each output")
        if to == "diffusers" and part.name != family.denoiser.name and not part.target_modules:
            raise NotHeld(f"has layers of {part.classes[0]} ({part.name}), on which diffusers loads no adapter")


def _title(module: Module) -> str:
    return {"loha": "LoHa", "lokr": "LoKr", "oft": "OFT"}.get(module.method, module.method)


# The layers of the code that a model was published with


def _kohya(adapter: AdapterFile, family: Family, sheet: _Sheet) -> dict[str, bytes]:
    names = adapter.names(family.name)
    for module in _layers(adapter, names, names.kohya):
        part = family.part(module.part)
        path = names.kohya[module.path] if part.name == family.denoiser.name else file_names.text_in_files(part, module.path)
        if not part.kohya_prefix:
            raise NotHeld(f"has layers of {part.name}, which has no name in kohya's files")
        _put_published(sheet, f"{part.kohya_prefix}_{path.replace('.', '_')}", module, {})
    metadata = {**_carried(adapter, family), **_kohya_metadata(adapter, family)}
    return {"": file_bytes(sheet.tensors, metadata | webui_hashes(sheet.tensors, metadata))}


def _comfyui(adapter: AdapterFile, family: Family, sheet: _Sheet) -> dict[str, bytes]:
    names = adapter.names(family.name)
    for module in _layers(adapter, names, names.original):
        part = family.part(module.part)
        if part.name == family.denoiser.name:
            name = f"{file_names.COMFY_DENOISER}{names.original[module.path]}"
        elif encoder := file_names.comfy_encoder(family, part):
            name = f"{file_names.COMFY_TEXT}{encoder}.transformer.{file_names.text_in_files(part, module.path)}"
        else:
            raise NotHeld(f"has layers of {part.name}, on which ComfyUI loads no adapter")
        _put_published(sheet, name, module, {"A": "lora_A.weight", "B": "lora_B.weight"})
    return {"": file_bytes(sheet.tensors, _carried(adapter, family))}


def _put_published(sheet: _Sheet, name: str, module: Module, ends: Mapping[str, str]) -> None:
    roles = {**_ROLES["lora" if module.method in _LORA else module.method], **ends}
    for role, tensor in module.tensors.items():
        is_flat = role == "magnitude" and tensor.ndim == 1
        shaped = tensor.reshape(-1, *[1] * (module.tensors["A"].ndim - 1)) if is_flat else tensor
        sheet.put(f"{name}.{roles[role]}", shaped, whole=role == "magnitude")
    alpha = torch.tensor(module.alpha, dtype=torch.float32)
    if float(alpha) != module.alpha:
        sheet.note(f"alphas are rounded to single precision, as {module.alpha!r} to {float(alpha)!r}")
    sheet.put(f"{name}.alpha", alpha, whole=True)


def _layers(adapter: AdapterFile, names: DenoiserNames, theirs: Mapping[str, str]) -> Iterator[Module]:
    """Those of the file, with their outputs in its order."""
    denoiser = FAMILIES.get(adapter.family).denoiser.name
    groups: dict[str, list[Module]] = {}
    for module in adapter.modules:
        if module.part == denoiser and module.path not in theirs:
            raise NotHeld(f"has {module.paths[0]}, which has no name there")
        groups.setdefault(theirs[module.path] if module.part == denoiser else module.paths[0], []).append(module)
    inverted = _inverted(theirs, (module.path for module in adapter.modules))
    for name, modules in groups.items():
        paths = [f"{denoiser}.{path}" for path in inverted.get(name, ())] if modules[0].part == denoiser else []
        module = modules[0] if len(modules[0].paths) > 1 or len(paths) < 2 else _joined(modules, paths)
        yield with_halves_exchanged(module) if is_swapped(module, adapter.family) else module


def _joined(modules: Sequence[Module], paths: Sequence[str]) -> Module:
    by_path = {module.paths[0]: module for module in modules}
    return joined([by_path.get(path) for path in paths], paths)


def _inverted(theirs: Mapping[str, str], paths: Iterable[str]) -> dict[str, list[str]]:
    wanted, found = {theirs.get(path) for path in paths}, dict[str, list[str]]()
    for ours, name in theirs.items():
        if name in wanted:
            found.setdefault(name, []).append(ours)
    return found


# Our own layers


def _diffusers(adapter: AdapterFile, family: Family, sheet: _Sheet, fold: bool) -> dict[str, bytes]:
    scales: dict[str, float] = {}
    written: list[Module] = []
    for module in map(_without_middle, adapter.modules):
        name = f"{module.part}.{file_names.text_in_files(family.part(module.part), module.path)}"
        if (folded := _folded(module, sheet, fold)) is not None:
            scales |= {} if module.scaling == 1 or fold else {name: module.scaling}
            module = folded
        else:
            sheet.note(
                f"scales that are no power of two, as {module.scaling:g}, stand in {DIFFUSERS_METADATA}, which ComfyUI and older diffusers "
                "do not read; --fold puts them into the weights, rounded"
            )
        written.append(module)
        _put_ours(sheet, name, module)
    configs = {f"{part}.{key}": value for part, modules in _by_part(written).items() for key, value in peft_config(modules, family).items()}
    metadata = {**_carried(adapter, family), DIFFUSERS_METADATA: json.dumps(configs, indent=2, sort_keys=True)}
    return {"": file_bytes(sheet.tensors, {**metadata, SCALING: json.dumps(scales)} if scales else metadata)}


def _folded(module: Module, sheet: _Sheet, fold: bool) -> Module | None:
    """With what it is scaled by in B; None: that would not be exact."""
    if module.scaling == 1:
        return module
    b = module.tensors["B"]
    stored = b if sheet.precision is None else b.to(DTYPES[sheet.precision])
    scaled = stored * module.scaling
    is_exact = _is_power_of_two(module.scaling) and torch.equal(scaled / module.scaling, stored)
    if not is_exact and not fold:
        return None
    if not is_exact:
        sheet.note("scales are in the weights, rounded")
        scaled = b * module.scaling
    return replace(module, tensors={**module.tensors, "B": scaled}, alpha=float(module.rank))


def _is_power_of_two(scale: float) -> bool:
    return scale > 0 and frexp(scale)[0] == 0.5


def _peft(adapter: AdapterFile, family: Family, sheet: _Sheet) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    parts = _by_part([_without_middle(module) for module in adapter.modules])
    main = family.denoiser.name if family.denoiser.name in parts else next(iter(parts))
    for part, modules in parts.items():
        own = _Sheet(sheet.precision, notes=sheet.notes)
        for module in modules:
            _put_ours(own, f"base_model.model.{module.path}", module)
        folder = "" if part == main else f"{part}/"
        config = peft_config(modules, family, is_folder=True)
        files[f"{folder}{CONFIG}"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
        files[f"{folder}{WEIGHTS}"] = file_bytes(own.tensors, _carried(adapter, family))
    return files


def _put_ours(sheet: _Sheet, name: str, module: Module) -> None:
    for role, tensor in module.tensors.items():
        is_convolution = role == "magnitude" and module.tensors["A"].ndim == 4
        sheet.put(f"{name}.{_PEFT_ROLES[role]}", tensor.reshape(1, -1, 1, 1) if is_convolution else tensor, whole=role == "magnitude")


def _without_middle(module: Module) -> Module:
    """LoCon's three factors as two: the middle one goes into A."""
    if "mid" not in module.tensors:
        return module
    a, mid = module.tensors["A"], module.tensors["mid"]
    whole = torch.einsum("rshw,si->rihw", mid.float(), a.flatten(1).float()).to(a.dtype)
    return replace(module, tensors={role: whole if role == "A" else tensor for role, tensor in module.tensors.items() if role != "mid"})


def peft_config(modules: Sequence[Module], family: Family, *, is_folder: bool = False) -> dict[str, object]:
    """PEFT's LoraConfig of one part: what most modules have, and patterns for the others."""
    part = family.part(modules[0].part)
    paths = {module.paths[0]: module.path if is_folder else file_names.text_in_files(part, module.path) for module in modules}
    rank, alpha = _usual([module.rank for module in modules]), _usual([module.alpha for module in modules])
    config: dict[str, object] = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _plain(alpha),
        "target_modules": sorted(paths.values()),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": modules[0].method == "dora",
        "rank_pattern": {paths[each.paths[0]]: each.rank for each in modules if each.rank != rank},
        "alpha_pattern": {paths[each.paths[0]]: _plain(each.alpha) for each in modules if each.alpha != alpha},
    }
    if len({module.method for module in modules}) > 1:
        raise NotHeld("has LoRA and DoRA on different modules, which PEFT's one use_dora cannot tell")
    return {**config, "inference_mode": True, "fan_in_fan_out": False, "init_lora_weights": True} if is_folder else config


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _usual(values: Sequence[N]) -> N:
    return max(dict.fromkeys(values), key=values.count)


def _by_part(modules: Sequence[Module]) -> dict[str, list[Module]]:
    found: dict[str, list[Module]] = {}
    for module in modules:
        found.setdefault(module.part, []).append(module)
    return found


# Metadata


def _carried(adapter: AdapterFile, family: Family) -> dict[str, str]:
    """What the file said of its training, but not what was of its own bytes."""
    kept = {key: value for key, value in adapter.metadata.items() if key not in _DROPPED}
    return {**kept, "format": "pt", detection.FAMILY_KEY: family.name}


def _kohya_metadata(adapter: AdapterFile, family: Family) -> dict[str, str]:
    """What readers of kohya's files look for, where the file did not say."""
    denoising = [module for module in adapter.modules if module.part == family.denoiser.name] or list(adapter.modules)
    values = {
        "ss_network_module": "networks.lora" if set(adapter.methods) == {"lora"} else "lycoris.kohya",
        "ss_network_dim": str(_usual([module.rank for module in denoising])),
        "ss_network_alpha": str(_usual([module.alpha for module in denoising])),
        "ss_base_model_version": family.kohya_version,
        "ss_v2": str(family.kohya_version.startswith("sd_v2")),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{family.architecture}/lora",
    }
    return {key: value for key, value in values.items() if key not in adapter.metadata}
