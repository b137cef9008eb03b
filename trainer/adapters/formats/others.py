"""The adapter as ComfyUI names it, and as PEFT's folder: made of kohya's file and of diffusers', which hold the same. Without the model."""

from collections.abc import Iterable
from dataclasses import replace

from lorafleet.catalog import file_names
from lorafleet.spec import Spec
from trainer.adapters.files import reading
from trainer.adapters.files.sources import Source
from trainer.adapters.files.writing import write


def comfyui_file(kohya: bytes, spec: Spec, modules: Iterable[str]) -> bytes:
    """ComfyUI has the same layers as kohya's file, by the names that they were published with. `modules`: all of the denoiser, for a
    UNet's names go by how many layers its levels have, which a file of some of them does not tell."""
    return _rewritten(kohya, spec, "comfyui", file_names.num_layers_of(modules))[""]


def peft_files(diffusers: bytes, spec: Spec) -> dict[str, bytes]:
    """By name in the folder; what the update is scaled by is in B, and alpha is the rank."""
    return dict(_rewritten(diffusers, spec, "peft"))


def _rewritten(data: bytes, spec: Spec, to: str, num_layers: int = file_names.LAYERS) -> dict[str, bytes]:
    adapter = replace(reading.read([Source("the adapter", data)], spec.family.name), num_layers=num_layers)
    return dict(write(adapter, to, family=spec.family.name).files)
