"""Counts what a device is asked for: operations, views, reads by the host, copies from the host. No device is needed.

The meta device stands for it, the CPU for the host: every operation is dispatched as it would be for a GPU, and computes only its
shapes. What the host would read is made up.
"""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
_SIZED_BY_NUMBERS = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}  # the host waits for these numbers
_COMPUTE_NOTHING = {  # though their schemas do not say so
    "_local_scalar_dense",  # of a number that the host has
    *("_unsafe_view", "_reshape_alias", "detach", "alias", "lift_fresh", "is_pinned", "_is_mkldnn_fp16_supported"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_record_function_enter_new", "_record_function_exit"),
}


class Counts(TorchDispatchMode):
    """What is dispatched within it."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = Counter[str]()  # that compute or move numbers, on the device or on the host
        self.views = Counter[str]()  # and what else launches nothing, but takes the host's time
        self.reads = Counter[str]()  # of the device by the host, which waits for it
        self.copies = Counter[str]()  # from the host to the device

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        from_device, to_device = _from_to(name, args, kwargs)
        if from_device and not to_device:
            self.reads[name] += 1
            return _made_up(name, args, kwargs)
        if name in _SIZED_BY_NUMBERS and args[0].is_meta:
            raise NotImplementedError(f"{name} reads the device, and nothing can be made up for it")
        if to_device and not from_device:
            self.copies[name] += 1
        (self.views if name in _COMPUTE_NOTHING or _is_view(func) else self.ops)[name] += 1
        return func(*args, **kwargs)


class _Lists(TorchFunctionMode):
    """A list as an index of a device's tensor, which no dispatch shows: its numbers are copied there."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].is_meta and isinstance(args[1], list):
            self._counts.copies["index"] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Generator[Counts]:
    """Counts what is dispatched within it. Attention is one fused operation, as it is on a GPU, not what the meta device makes of it."""
    with patch.object(torch.nn.functional, "scaled_dot_product_attention", _attention), Counts() as counts, _Lists(counts):
        yield counts


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False, **_: Any
) -> Tensor:
    fused: Callable[..., Any] = torch.ops.aten._scaled_dot_product_efficient_attention
    return fused(query, key, value, attn_mask, True)[0]


def _from_to(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, bool]:
    """Whether numbers are brought from the device, and whether to it."""
    match name:
        case "_to_copy":
            return args[0].is_meta, torch.device(kwargs.get("device") or args[0].device) == DEVICE
        case "copy_":
            return args[1].is_meta, args[0].is_meta
        case "_local_scalar_dense":
            return args[0].is_meta, False
        case "lift_fresh":  # torch.tensor(...): the numbers are Python's
            return False, args[0].is_meta
        case _:
            return False, False


def _made_up(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    match name:
        case "_local_scalar_dense":
            return torch.ones((), dtype=args[0].dtype).item()
        case "copy_":
            return args[0].fill_(1)
        case _:
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)


def _is_view(func: Any) -> bool:
    """Whether what it returns is of its inputs' memory, to which it writes nothing."""
    aliases = [each.alias_info for each in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
