"""Loads a denoiser with its repeated layers quantised, one tensor after the other: at no time is there a larger copy of it.

The model is made without numbers (accelerate's init_empty_weights); weights are read from mapped files, whose pages are the kernel's to
drop, and each layer is quantised as soon as all of it is there.
"""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from safetensors import safe_open
from torch import Tensor, nn

from lorafleet.catalog.precision import is_quantised
from trainer.quantisation import QUANTISATIONS
from trainer.untrusted import Refused

GIVE_BACK_BYTES = 64 * 2**20  # of weights read


def load(kind: Any, folder: Path, precision: str, dtype: torch.dtype) -> nn.Module:
    """A model of diffusers' class `kind`; what is not quantised is of `dtype`. Raises Refused where its files lack weights."""
    quantise = QUANTISATIONS.get(precision)
    with init_empty_weights():
        model: nn.Module = kind.from_config(kind.load_config(folder, local_files_only=True))
    awaited = _awaited(model)
    wanted = set(dict(model.named_parameters())) | _kept_buffers(model)
    given_back = 0
    for num_read, name, tensor in _tensors(folder):
        if num_read - given_back > GIVE_BACK_BYTES:
            given_back = num_read
            _give_back()
        if name not in wanted:
            continue
        wanted.remove(name)
        set_module_tensor_to_device(model, name, "cpu", value=tensor, dtype=dtype if tensor.is_floating_point() else None)
        path = name.rpartition(".")[0]
        if path in awaited:
            awaited[path].discard(name)
            if not awaited[path]:
                model.set_submodule(path, quantise(_frozen(model.get_submodule(path))))
    _give_back()
    if wanted:
        raise Refused(f"its files lack {len(wanted)} of its weights, such as {min(wanted)}")
    return model


def _awaited(model: nn.Module) -> Mapping[str, set[str]]:
    """Of each layer that is to be quantised the names of the tensors that it waits for."""
    return {
        path: {f"{path}.{name}" for name, _ in layer.named_parameters()}
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and is_quantised(path, tuple(layer.weight.shape))
    }


def _kept_buffers(model: nn.Module) -> set[str]:
    """Buffers that files hold; the others were computed as the model was made."""
    return {name for name, _ in model.named_buffers() if name in model.state_dict()}


def _tensors(folder: Path) -> Iterator[tuple[int, str, Tensor]]:
    """(bytes that were read before it, name, tensor)"""
    done = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                tensor = file.get_tensor(name)
                yield done, name, tensor
                done += tensor.nbytes


def _give_back() -> None:
    """Memory that was freed to the kernel: glibc keeps what lies between the small tensors that stay, several times their size."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _frozen(layer: nn.Module) -> Any:
    return layer.requires_grad_(False)
