"""Many adapters on one frozen base: the base's layers are computed once for all rows, each style's update on its own rows.

The adapters of one kind are the rows of one parameter, `flat` (capacity, size): a style's whole adapter is one row, and
so are its gradient and its moments. A forward pass sees them as batched matrices: A (k, rank, in), B (k, out, rank), so
that k updates are two batched products (`bmm`), however many styles there are. Rows of the batch lie style by style.

Batch invariance: a style's numbers must not depend, to the last bit, on the other styles of its pack. On CPUs the kernels
of oneDNN and MKL compute a row the same way in every batch of a multiple of 4 rows (on one thread: of 16 rows or more), and
a matrix the same way in every batch of 2 or more (bench/invariance.py measures both), so batches are padded to that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.adapters.dropout import keyed_dropout
from trainer.adapters.layout import TEXT_ENCODER_MODULES, Kind, Layer, Layout, is_target, layout
from trainer.families.protocol import Family
from trainer.passes import PaddingRules

MIN_SLOTS = 2

Weights = Mapping[str, Tensor]  # by role


def padding_rules(device_type: str, num_threads: int) -> PaddingRules:
    """The padding that batch invariance needs on this kind of device (see above). On GPUs none would be enough."""
    if device_type != "cpu":
        return PaddingRules(min_slots=MIN_SLOTS)
    return PaddingRules(min_slots=MIN_SLOTS, min_rows=16 if num_threads == 1 else 4, rows_multiple=4)


class Bank(nn.Module):
    """The adapters of one kind. Slots 0 to `num_styles` - 1 are in use; when a style leaves, the last one moves into its slot."""

    def __init__(self, kind: Kind, where: Layout, capacity: int, *, batch_invariant: bool) -> None:
        super().__init__()
        self.kind = kind
        self.layout = where
        self.num_styles = 0
        self.min_slots = MIN_SLOTS if batch_invariant else 1
        self.capacity = max(capacity, self.min_slots)
        self.flat = nn.Parameter(torch.zeros(self.capacity, where.size))
        self.scaling: Tensor
        self.register_buffer("scaling", torch.zeros(self.capacity), persistent=False)

    @property
    def is_full(self) -> bool:
        return self.num_styles == self.capacity

    def add_style(self, row: Tensor, scaling: float) -> int:
        """Puts a style's weights, (size,), into the next free slot and returns the slot. ZeRO 1 to 3: before the engine is built."""
        slot, self.num_styles = self.num_styles, self.num_styles + 1
        with torch.no_grad():
            self.flat[slot] = row
            self.scaling[slot] = scaling
        return slot

    @property
    def num_rows(self) -> int:
        """Rows of `flat` used in a step: those of the styles, and an idle one of zeros if a batch of 2 is needed."""
        return max(self.num_styles, self.min_slots)

    def forward(self, slots: Sequence[int]) -> tuple[Tensor, ...]:
        """The pieces of these slots' adapters, each (len(slots), *shape)."""
        # The parameter is only touched in here: ZeRO-3 gathers it for the time of this call.
        return tuple(part for _, part in self.layout.split(self._rows(slots)))

    def _rows(self, slots: Sequence[int]) -> Tensor:
        first, count = slots[0], len(slots)
        if list(slots) != list(range(first, first + count)):
            return self.flat[list(slots)]  # a copy; the others are views
        # The gradient of a part is copied once more to make it whole.
        return self.flat if count == self.capacity else self.flat[first : first + count]


@dataclass
class ActiveSlots:
    """Some slots of a bank in one batch: slot i has rows [start + i * rows_each, start + (i + 1) * rows_each)."""

    bank: Bank
    slots: Sequence[int]
    start: int = 0
    rows_each: int | None = None  # None: one slot has the whole batch, whatever its size
    seeds: Sequence[int] = ()  # of dropout, one for each row; empty: no dropout
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # module -> role -> (slots, *shape)
    scaling: Tensor = field(default_factory=lambda: torch.empty(0))

    def load_weights(self) -> None:
        """Fetches the weights from the bank for one forward pass."""
        self.weights = {}
        for piece, part in zip(self.bank.layout.pieces, self.bank(self.slots), strict=True):
            self.weights.setdefault(piece.module, {})[piece.role] = part
        self.scaling = self.bank.scaling[list(self.slots)]

    def rows(self, batch: int) -> slice:
        """The rows of these slots in a batch of that many rows."""
        return slice(self.start, self.start + len(self.slots) * (self.rows_each or batch))


@dataclass
class RowAssignment:
    """Which slots have which rows of the current batch. Shared by all layers of a pack."""

    active: Sequence[ActiveSlots] = ()


class Adapted(nn.Module):
    """A frozen layer with the updates of all active slots."""

    def __init__(self, base: nn.Module, module: str, number: int, assignment: RowAssignment) -> None:
        super().__init__()
        self.base = base
        self.module = module
        self.number = number  # of the layer: keys its dropout
        self.assignment = assignment

    @property
    def weight(self) -> Any:
        return self.base.weight

    @property
    def bias(self) -> Any:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)
        pieces, done = [], 0
        for active in self.assignment.active:
            if self.module not in active.weights:
                continue
            rows = active.rows(len(x))
            if rows.start > done:
                pieces.append(out[done : rows.start])
            pieces.append(self._updated(active, x[rows], out[rows]))
            done = rows.stop
        if done < len(x):
            pieces.append(out[done:])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _updated(self, active: ActiveSlots, x: Tensor, out: Tensor) -> Tensor:
        weights = active.weights[self.module]
        if active.seeds:
            x = keyed_dropout(x, active.seeds, rate=active.bank.kind.dropout, layer=self.number)
        if "magnitude" not in weights:
            return self.update(x, weights, active.scaling, out)
        bias = self.along_outputs(self.bias) if self.bias is not None else 0.0
        without_bias = self.frozen(x) if active.seeds else out - bias
        return self.times(self.update(x, weights, active.scaling, without_bias), self._direction(weights, active.scaling)) + bias

    def _direction(self, weights: Weights, scaling: Tensor) -> Tensor:
        """DoRA's magnitude over the norm of the direction, (slots, out); the norm is a constant to the gradient (Liu et al. 2024, 4.3)."""
        with torch.no_grad(), torch.autocast(scaling.device.type, enabled=False):
            norm = column_norm(self.weight.to(weights["A"].dtype), weights["A"], weights["B"], scaling)
        return weights["magnitude"] / norm

    def update(self, x: Tensor, weights: Weights, scaling: Tensor, out: Tensor) -> Tensor:
        """`out` plus scaling * B A x."""
        raise NotImplementedError

    def times(self, out: Tensor, factor: Tensor) -> Tensor:
        """`out` times each slot's factor for each output, (slots, out)."""
        raise NotImplementedError

    def along_outputs(self, bias: Tensor) -> Tensor:
        """The bias, (out,), as it is added to the layer's output."""
        raise NotImplementedError

    def frozen(self, x: Tensor) -> Tensor:
        """The frozen layer without its bias."""
        raise NotImplementedError


class AdaptedLinear(Adapted):
    """x (rows, …, in) -> (rows, …, out)."""

    def update(self, x: Tensor, weights: Weights, scaling: Tensor, out: Tensor) -> Tensor:
        a, b = weights["A"], weights["B"]
        slots = len(a)
        h = torch.bmm(x.reshape(slots, -1, x.shape[-1]), a.mT) * scaling[:, None, None]
        return torch.baddbmm(out.reshape(slots, -1, out.shape[-1]), h, b.mT).view_as(out)

    def times(self, out: Tensor, factor: Tensor) -> Tensor:
        return (out.reshape(len(factor), -1, out.shape[-1]) * factor[:, None]).view_as(out)

    def along_outputs(self, bias: Tensor) -> Tensor:
        return bias

    def frozen(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class AdaptedConv2d(Adapted):
    """x (rows, in, height, width) -> (rows, out, height', width'): A is a convolution like the base's, B one of 1 x 1."""

    base: nn.Conv2d

    def update(self, x: Tensor, weights: Weights, scaling: Tensor, out: Tensor) -> Tensor:
        a, b = weights["A"], weights["B"].flatten(2)
        slots, rank = a.shape[:2]
        each = len(x) // slots
        # One grouped convolution: the slots' channels side by side, a group for each.
        side_by_side = x.unflatten(0, (slots, each)).transpose(0, 1).flatten(1, 2)
        h = F.conv2d(side_by_side, a.flatten(0, 1), None, self.base.stride, self.base.padding, self.base.dilation, slots)
        h = h.flatten(2).unflatten(1, (slots, rank)).transpose(0, 1) * scaling[:, None, None, None]  # (slots, each, rank, pixels)
        b = b[:, None].expand(-1, each, -1, -1).flatten(0, 1)
        return torch.baddbmm(out.flatten(2), b, h.flatten(0, 1)).view_as(out)

    def times(self, out: Tensor, factor: Tensor) -> Tensor:
        return (out.unflatten(0, (len(factor), -1)) * factor[:, None, :, None, None]).flatten(0, 1)

    def along_outputs(self, bias: Tensor) -> Tensor:
        return bias[:, None, None]

    def frozen(self, x: Tensor) -> Tensor:
        base = self.base
        return F.conv2d(x, base.weight, None, base.stride, base.padding, base.dilation, base.groups)


def column_norm(weight: Tensor, a: Tensor, b: Tensor, scaling: Tensor) -> Tensor:
    """Norms of each output's weights in W + scaling B A, (slots, out), without making k copies of W.

    |w + s bA|^2 = |w|^2 + 2 s b . (A w) + s^2 b (A A^T) b^T, for each row w of W and b of B.
    """
    w, a, b = weight.flatten(1), a.flatten(2), b.flatten(2)
    s = scaling[:, None]
    aw = torch.bmm(a, w.T.expand(len(a), -1, -1))  # (slots, rank, out)
    cross = (b * aw.mT).sum(2)
    update = (torch.bmm(b, torch.bmm(a, a.mT)) * b).sum(2)
    return (w.pow(2).sum(1) + 2 * s * cross + s.pow(2) * update).clamp_min(0).sqrt()


class PackModel(nn.Module):
    """The model that the engine trains: the frozen parts with all adapters."""

    def __init__(self, family: Family, unet: nn.Module, text_encoder: nn.Module | None, *, bf16: bool) -> None:
        super().__init__()
        self.family = family
        self.bf16 = bf16
        self.unet = unet
        self.text_encoder = text_encoder
        self.banks = nn.ModuleList()
        self.assignment = RowAssignment()
        parts = {"unet": unet, **({} if text_encoder is None else {"text_encoder": text_encoder})}
        self._layers = {  # layers that can be adapted, by canonical path
            f"{part}.{path}": layer
            for part, module in parts.items()
            for path, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        self._adapted: set[str] = set()

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """`text` is the conditioning, or the tokens where the text encoder trains too."""
        self.load_weights()
        # In here and not around the engine: DeepSpeed turns off an autocast that it finds around itself.
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.bf16):
            if self.text_encoder is not None:
                text = self.family.encode_tokens(self.text_encoder, text)
            return self.family.predict(self.unet, noisy, timesteps, text)

    def load_weights(self) -> None:
        """Fetches the weights of all active slots from their banks; also needed for a forward pass of a single part."""
        for active in self.assignment.active:
            active.load_weights()

    def layers_of(self, kind: Kind) -> dict[str, Layer]:
        """The frozen layers that adapters of a kind are put on, by canonical path."""
        endings = {"unet": kind.target_modules, **({"text_encoder": TEXT_ENCODER_MODULES} if kind.text_encoder else {})}
        return {path: layer for path, layer in self._layers.items() if is_target(path, endings)}

    def add_bank(self, kind: Kind, capacity: int, *, batch_invariant: bool) -> Bank:
        """A new bank for `capacity` adapters of a kind."""
        layers = self.layers_of(kind)
        for path, layer in layers.items():
            if path not in self._adapted:
                adapted = AdaptedLinear if isinstance(layer, nn.Linear) else AdaptedConv2d
                _put(self, path, adapted(layer, path, list(self._layers).index(path), self.assignment))
                self._adapted.add(path)
        bank = Bank(kind, layout(kind, layers), capacity, batch_invariant=batch_invariant)
        self.banks.append(bank)
        return bank

    def strip(self) -> None:
        """Removes all adapters, leaving the frozen parts as they were."""
        for path in self._adapted:
            _put(self, path, self._layers[path])
        self._adapted.clear()
        self.banks = nn.ModuleList()
        self.assignment.active = ()


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
