"""Frozen layers with the adapters of many styles: a layer is computed once for all rows, each style's update on its own rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import gcd
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.adapters import low_rank
from trainer.adapters.bank import ActiveLayer
from trainer.adapters.dropout import keyed_dropout
from trainer.adapters.methods.protocol import Slots

LINE = 16  # fp32 numbers of a cache line


class Adapted(nn.Module, ABC):
    """A frozen layer with the updates of all active slots. See adapters.methods.protocol.Layer."""

    def __init__(self, base: nn.Module, number: int) -> None:
        super().__init__()
        self.base = base
        self.number = number  # of the layer: keys its dropout
        self.active: Sequence[ActiveLayer] = ()  # in the forward pass that goes on: PackModel says so to all of its layers

    @property
    def weight(self) -> Any:
        return self.base.weight

    @property
    def bias(self) -> Any:
        return self.base.bias

    def __getattr__(self, name: str) -> Any:
        """Whatever else libraries ask a layer for (`in_features` of one, `stride` of the other) is the frozen layer's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x: Tensor) -> Tensor:
        active = self.active
        seen = self._per_slots(active, x, self._inputs) if any(each.method.changes_inputs for each in active) else x
        out = self.base(seen)

        def outputs(each: ActiveLayer, part: Tensor, rows: slice) -> Tensor:
            # Not all of `seen`: gradients would then add up in another order than in company that changes no inputs.
            its = seen if each.method.changes_inputs else x
            return self._outputs(each, its if part is out else its[rows], part)

        return self._per_slots(active, out, outputs)

    def _per_slots(self, active: Sequence[ActiveLayer], whole: Tensor, change: Callable[[ActiveLayer, Tensor, slice], Tensor]) -> Tensor:
        """`whole` with the rows of these slots changed."""
        pieces: list[Tensor] = []
        done, end = 0, len(whole)
        for each in active:
            rows = each.slots.rows(end)
            if rows == slice(0, end):
                return change(each, whole, rows)  # a slice of all would be an operation like any other
            if rows.start > done:
                pieces.append(whole[done : rows.start])
            pieces.append(change(each, whole[rows], rows))
            done = rows.stop
        if done < end:
            pieces.append(whole[done:])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _inputs(self, active: ActiveLayer, x: Tensor, _: slice) -> Tensor:
        its, slots = active.slots, Slots(active.weights, active.scaling, is_dropped=False)
        return its.served(active.method.inputs(self, its.paired(x), slots))

    def _outputs(self, active: ActiveLayer, x: Tensor, out: Tensor) -> Tensor:
        its = active.slots
        if rate := active.dropout:
            x = keyed_dropout(x, its.seeds, rate=rate, layer=self.number)
        slots = Slots(active.weights, active.scaling, rate > 0, its.noise, its.bank.kind.min_rank, its.bank.kind.subtracts)
        return its.served(active.method.outputs(self, its.paired(x), its.paired(out), slots))

    @abstractmethod
    def add_low_rank(self, x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor, kept: Tensor | None = None) -> Tensor: ...

    @abstractmethod
    def add_kronecker(self, x: Tensor, first: Tensor, second: Sequence[Tensor], scaling: Tensor, out: Tensor) -> Tensor: ...

    @abstractmethod
    def turned(self, out: Tensor, turns: Tensor) -> Tensor: ...

    @abstractmethod
    def times(self, out: Tensor, factor: Tensor) -> Tensor: ...

    def times_inputs(self, x: Tensor, factor: Tensor) -> Tensor:
        return self.times(x, factor)  # channels lie alike on both sides

    @abstractmethod
    def along_outputs(self, bias: Tensor) -> Tensor: ...

    @abstractmethod
    def frozen(self, x: Tensor) -> Tensor: ...


class AdaptedLinear(Adapted):
    """x (rows, …, in) -> (rows, …, out)."""

    def add_low_rank(self, x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor, kept: Tensor | None = None) -> Tensor:
        if kept is None:
            return low_rank.add_low_rank(x, a, b, scaling, out)
        slots = len(a)
        rows, whole = x.reshape(slots, -1, x.shape[-1]), out.reshape(slots, -1, out.shape[-1])
        h = torch.bmm(rows, a.mT) * scaling[:, None, None]
        h = (h.view(len(x), -1, h.shape[-1]) * kept[:, None]).view_as(h)
        return torch.baddbmm(whole, h, b.mT).view_as(out)

    def add_kronecker(self, x: Tensor, first: Tensor, second: Sequence[Tensor], scaling: Tensor, out: Tensor) -> Tensor:
        slots, _, i1 = first.shape
        h = x.reshape(slots, -1, x.shape[-1] // i1)  # (slots, pixels * i1, i2)
        for each in second:
            h = _product(h, each)
        o2 = h.shape[-1]
        h = torch.unflatten(h, 1, (-1, i1)).mT.reshape(slots, -1, i1)  # (slots, pixels * o2, i1)
        h = _product(h, first * scaling[:, None, None])
        return out + torch.unflatten(h, 1, (-1, o2)).mT.reshape(out.shape)  # (slots, pixels, o1, o2)

    def turned(self, out: Tensor, turns: Tensor) -> Tensor:
        slots, num_blocks, size, _ = turns.shape
        blocks = out.reshape(slots, -1, num_blocks, size).transpose(1, 2).flatten(0, 1)  # (slots * blocks, pixels, size)
        turned = torch.bmm(blocks, turns.flatten(0, 1))
        return torch.unflatten(turned, 0, (slots, num_blocks)).transpose(1, 2).reshape(out.shape)

    def times(self, out: Tensor, factor: Tensor) -> Tensor:
        return (out.reshape(len(factor), -1, out.shape[-1]) * factor[:, None]).view_as(out)

    def along_outputs(self, bias: Tensor) -> Tensor:
        return bias

    def frozen(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class AdaptedConv2d(Adapted):
    """x (rows, in, height, width) -> (rows, out, height', width'): A is a convolution like the base's, B one of 1 x 1."""

    base: nn.Conv2d

    def add_low_rank(self, x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor, kept: Tensor | None = None) -> Tensor:
        h = self._convolved(x, a) * scaling[:, None, None, None]
        if kept is not None:
            h = (h.flatten(0, 1) * kept[:, :, None]).view_as(h)
        return torch.baddbmm(out.flatten(2), _for_rows(b.flatten(2), h.shape[1]), h.flatten(0, 1)).view_as(out)

    def add_kronecker(self, x: Tensor, first: Tensor, second: Sequence[Tensor], scaling: Tensor, out: Tensor) -> Tensor:
        slots, _, i1 = first.shape
        h = self._convolved(torch.unflatten(x, 1, (i1, -1)).flatten(0, 1), second[0])  # (slots, each * i1, o2 or rank, pixels)
        num_rows = h.shape[1]
        h = h.flatten(0, 1)
        for each in second[1:]:
            h = torch.bmm(_for_rows(each, num_rows), h)
        first = _for_rows(first * scaling[:, None, None], len(x) // slots)
        return out + torch.bmm(first, h.reshape(len(x), i1, -1)).view_as(out)

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """Each slot's rows by its own convolution like the base's, (slots, rows each, channels, pixels)."""
        slots, channels = weight.shape[:2]
        # One grouped convolution: the slots' channels side by side, a group for each.
        side_by_side = torch.unflatten(x, 0, (slots, len(x) // slots)).transpose(0, 1).flatten(1, 2)
        h = F.conv2d(side_by_side, weight.flatten(0, 1), None, self.base.stride, self.base.padding, self.base.dilation, slots)
        return torch.unflatten(h.flatten(2), 1, (slots, channels)).transpose(0, 1)

    def turned(self, out: Tensor, turns: Tensor) -> Tensor:
        each = turns.mT[:, None].expand(-1, len(out) // len(turns), -1, -1, -1).flatten(0, 2)  # (rows * blocks, size, size)
        return torch.bmm(each, out.reshape(len(each), turns.shape[-1], -1)).view_as(out)

    def times(self, out: Tensor, factor: Tensor) -> Tensor:
        return (torch.unflatten(out, 0, (len(factor), -1)) * factor[:, None, :, None, None]).flatten(0, 1)

    def along_outputs(self, bias: Tensor) -> Tensor:
        return bias[:, None, None]

    def frozen(self, x: Tensor) -> Tensor:
        base = self.base
        return F.conv2d(x, base.weight, None, base.stride, base.padding, base.dilation, base.groups)


def _for_rows(matrices: Tensor, rows_each: int) -> Tensor:
    """Each slot's matrix once for each of its rows, (rows, ...)."""
    return matrices[:, None].expand(-1, rows_each, -1, -1).flatten(0, 1)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x (slots, rows, in) by each slot's small matrix (slots, out, in).

    With rows of zeros where a matrix would not fill whole cache lines: MKL adds up what it writes across their borders in another
    order, so that gradients would depend on a slot's place in the batch.
    """
    num_outputs, num_inputs = weight.shape[1:]
    missing = -num_outputs % (LINE // gcd(LINE, num_inputs))
    if not missing:
        return torch.bmm(x, weight.mT)
    return torch.bmm(x, F.pad(weight, (0, 0, 0, missing)).mT)[..., :num_outputs]
