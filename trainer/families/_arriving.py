"""Puts weights into a model as they arrive, one tensor after the other: at no time is there a larger copy of it.

A model of diffusers is made without numbers (accelerate's init_empty_weights), and each of its repeated layers is quantised, where that
is asked, as soon as all of it is there. Weights come from mapped files, whose pages are the kernel's to drop, or from a store.
"""

import ctypes
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from safetensors import safe_open
from torch import Tensor, nn

from lorafleet.catalog.precision import is_quantised
from trainer.families.protocol import Loading, Weights
from trainer.quantisation import QUANTISATIONS
from trainer.typed_torch import named_modules
from trainer.untrusted import Refused

GIVE_BACK_BYTES = 16 * 2**20  # of weights read


def of_diffusers(kind: Any, folder: Path, how: Loading) -> nn.Module:
    """A model of diffusers' class `kind`; what is not quantised is of the dtype. Raises Refused where its files lack weights."""
    with _numbers_in(how), init_empty_weights():
        model: Any = kind.from_config(kind.load_config(folder, local_files_only=True))
    awaited = _awaited(model) if how.quantised else dict[str, set[str]]()
    wanted = set(dict(model.named_parameters())) | _kept_buffers(model)
    for told, tensor in _giving_back(how.weights or _mapped(folder)):
        name = told if told in wanted else _new_name(model, told)
        if name not in wanted:
            continue
        wanted.remove(name)
        set_module_tensor_to_device(model, name, "cpu", value=tensor, dtype=_dtype(model, name, tensor, how))
        path = name.rpartition(".")[0]
        if path in awaited:
            awaited[path].discard(name)
            if not awaited[path]:
                model.set_submodule(path, QUANTISATIONS.get(how.quantised)(_frozen(model.get_submodule(path))))
    if wanted:
        raise Refused(f"its files lack {len(wanted)} of its weights, such as {min(wanted)}")
    return model


def of_transformers(kind: Any, folder: Path, how: Loading) -> tuple[nn.Module, Mapping[str, Any]]:
    """A model of transformers' class `kind` with the weights that come by themselves, and what the library found of them.

    It knows tensors by names of its own, and ties some: they are its to place. It gets them in the dtype that they will have.
    """
    weights = {name: _as(how.dtype, tensor) for name, tensor in _giving_back(how.weights or _mapped(folder))}
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    return kind.from_pretrained(None, config=config, state_dict=weights, dtype=how.dtype, output_loading_info=True)


class Sealed(nn.Module):
    """A quantised layer whose weight is not to be looked at: T5 brings its states to the dtype of the weight that they are for."""

    weight: None = None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def quantise(model: nn.Module, quantisation: str) -> None:
    """The repeated layers of a model of transformers, one after the other: it is there whole before the first of them is small."""
    for path in _awaited(model):
        model.set_submodule(path, Sealed(QUANTISATIONS.get(quantisation)(_frozen(model.get_submodule(path)))))
    _give_back()


@contextmanager
def _numbers_in(how: Loading) -> Generator[None]:
    """The dtype of what a model computes as it is made: diffusers' own loading makes it so, but where layers are quantised."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(before if how.quantised else how.dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _dtype(model: Any, name: str, tensor: Tensor, how: Loading) -> torch.dtype | None:
    """None: its own. Some models compute parts of themselves in fp32 always, such as the norms of Krea 2."""
    if not tensor.is_floating_point():
        return None
    kept = model._keep_in_fp32_modules or ()  # diffusers' own, as its from_pretrained reads it
    return torch.float32 if any(part in kept for part in name.split(".")) else how.dtype


def _awaited(model: nn.Module) -> Mapping[str, set[str]]:
    """Of each layer that is to be quantised the names of the tensors that it waits for."""
    return {
        path: {f"{path}.{name}" for name, _ in layer.named_parameters()}
        for path, layer in named_modules(model)
        if isinstance(layer, nn.Linear) and is_quantised(path, tuple(layer.weight.shape))
    }


def _kept_buffers(model: nn.Module) -> set[str]:
    """Buffers that files hold; the others were computed as the model was made."""
    return {name for name, _ in model.named_buffers() if name in model.state_dict()}


def _new_name(model: Any, name: str) -> str:
    """Of a tensor that older folders name otherwise."""
    (found,) = model._fix_state_dict_keys_on_load({name: name})  # diffusers' own, of its from_pretrained
    return found


def _mapped(folder: Path) -> Weights:
    """Of the files in a folder."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                yield name, file.get_tensor(name)


def _giving_back(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """The same; now and then memory that was freed goes back to the kernel, of which glibc keeps what lies between the small tensors
    that stay: several times their size."""
    num_read = 0
    for name, tensor in weights:
        num_read += tensor.nbytes
        yield name, tensor
        del tensor
        if num_read > GIVE_BACK_BYTES:
            num_read = 0
            _give_back()
    _give_back()


def _give_back() -> None:
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _as(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _frozen(layer: nn.Module) -> Any:
    return layer.requires_grad_(False)
