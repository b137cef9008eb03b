"""The adapter as ComfyUI names it, and as PEFT's folder: made of kohya's file and of diffusers', which hold the same. Without the model."""

from lorafleet.spec import Spec
from trainer.adapters.files import reading
from trainer.adapters.files.sources import Source
from trainer.adapters.files.writing import write


def comfyui_file(kohya: bytes, spec: Spec) -> bytes:
    """ComfyUI has the same layers as kohya's file, by the names that they were published with."""
    return _rewritten(kohya, spec, "comfyui")[""]


def peft_files(diffusers: bytes, spec: Spec) -> dict[str, bytes]:
    """By name in the folder; what the update is scaled by is in B, and alpha is the rank."""
    return dict(_rewritten(diffusers, spec, "peft"))


def _rewritten(data: bytes, spec: Spec, to: str) -> dict[str, bytes]:
    adapter = reading.read([Source("the adapter", data)], spec.family.name)
    return dict(write(adapter, to, family=spec.family.name).files)
