"""The adapters of a pack as numbers: those of one kind are the rows of one parameter.

The adapters of one kind are the rows of one parameter, `flat` (capacity, size): a style's whole adapter is one row, and
so are its gradient and its moments. A forward pass sees them as batched matrices: A (k, rank, in), B (k, out, rank), so
that k updates are two batched products (`bmm`), however many styles there are. Rows of the batch lie style by style.

Batch invariance: a style's numbers must not depend, to the last bit, on the other styles of its pack. On CPUs the kernels
of oneDNN and MKL compute a row the same way in every batch of a multiple of 4 rows (on one thread: of 16 rows or more), and
a matrix the same way in every batch of 2 or more (bench/invariance.py measures both), so batches are padded to that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lorafleet.spec import AdapterSpec
from lorafleet.spec_overrides import claiming
from lorafleet.spec_tokens import TokenSpec
from trainer.adapters import pairing
from trainer.adapters.beginnings import doubled
from trainer.adapters.layout import VECTORS, Kind, Layout, Piece, scaling
from trainer.adapters.methods import METHODS
from trainer.adapters.methods.protocol import AdapterMethod

MIN_SLOTS = 2  # of a bank that is batch invariant


class Bank(nn.Module):
    """The adapters of one kind. Slots 0 to `num_styles` - 1 are in use; when a style leaves, the last one moves into its slot."""

    def __init__(self, kind: Kind, where: Layout, capacity: int, *, batch_invariant: bool) -> None:
        super().__init__()
        self.kind = kind
        self.method: AdapterMethod = METHODS.get(kind.method)
        self.layout = where
        self.num_styles = 0
        self.min_slots = MIN_SLOTS if batch_invariant else 1
        self.capacity = max(capacity, self.min_slots)
        self.flat = nn.Parameter(torch.zeros(self.capacity, where.size))
        self.tokens: list[tuple[TokenSpec, ...]] = [()] * self.capacity  # of each slot: the new ones
        self.deviations: dict[str, float] = {}  # of the embeddings that new tokens lie beside, by canonical path
        self.scaling: Tensor
        # Layers of the same overrides have the same scaling, in a column of their own.
        chains = [tuple(claiming(kind.overrides, module)) for module in where.modules]
        self._chains = list(dict.fromkeys(chains)) or [()]
        self.column = {module: self._chains.index(chain) for module, chain in zip(where.modules, chains, strict=True)}
        self.dropout = {module: kind.dropout_at(module) for module in where.modules}
        self.register_buffer("scaling", torch.zeros(self.capacity, len(self._chains)), persistent=False)
        self.began: Tensor | None
        self.register_buffer("began", torch.zeros(self.capacity, where.size) if kind.subtracts else None, persistent=False)

    @property
    def is_full(self) -> bool:
        return self.num_styles == self.capacity

    def scaling_of(self, adapter: AdapterSpec) -> Tensor:
        """What a style's updates are multiplied by, for each column of layers."""
        first = {column: module for module, column in reversed(self.column.items())}
        return torch.tensor([scaling(adapter.at(first[column])) if column in first else 1.0 for column in range(len(self._chains))])

    def add_style(self, row: Tensor, scaling: float | Tensor, began: Tensor | None = None, tokens: tuple[TokenSpec, ...] = ()) -> int:
        """Puts a style's weights, (size,), into the next free slot and returns the slot. ZeRO 1 to 3: before the engine is built.

        `scaling`: one for all layers, or those of `scaling_of`. `began`: the weights that it began with, where they are subtracted.
        """
        slot, self.num_styles = self.num_styles, self.num_styles + 1
        self.tokens[slot] = tokens
        with torch.no_grad():
            self.flat[slot] = row
            self.scaling[slot] = scaling
            if self.began is not None and began is not None:
                self.began[slot] = began
        return slot

    @property
    def num_rows(self) -> int:
        """Rows of `flat` used in a step: those of the styles, and an idle one of zeros if a batch of 2 is needed."""
        return max(self.num_styles, self.min_slots)

    def has_no_more_than(self, slots: Sequence[int]) -> bool:
        """Whether these are all there is room for, in their order."""
        return list(slots) == list(range(self.capacity))

    def forward(self, slots: Sequence[int], index: Tensor | None = None, *, by_index: bool = False) -> tuple[Tensor, ...]:
        """The pieces of these slots' adapters, each (len(slots), *shape). `index`: the slots once more, where they are on the device;
        `by_index`: which they are is read there alone.
        """
        # The parameter is only touched in here: ZeRO-3 gathers it for the time of this call.
        return tuple(part for _, part in self.layout.split(self.rows(self.flat, slots, index, by_index=by_index)))

    def rows(self, whole: Tensor, slots: Sequence[int], index: Tensor | None = None, *, by_index: bool = False) -> Tensor:
        """Of what is kept by slots, (capacity, ...)."""
        first, count = slots[0], len(slots)
        if list(slots) != list(range(first, first + count)) or (by_index and count < self.capacity):
            return whole[list(slots) if index is None else index]  # a copy; the others are views
        # The gradient of a part is copied once more to make it whole.
        return whole if count == self.capacity else whole[first : first + count]


@dataclass(frozen=True)
class ActiveLayer:
    """What some slots bring to one layer. It names no layer: what is compiled for a block then serves every block that is alike."""

    slots: "ActiveSlots"
    weights: Mapping[str, Tensor]  # role -> (slots, *shape)
    scaling: Tensor  # what the layer's updates are multiplied by, (slots,)
    dropout: float  # of the layer's inputs; 0: none

    @property
    def method(self) -> AdapterMethod:
        return self.slots.method


@dataclass
class ActiveSlots:
    """Some slots of a bank in one batch: slot i has rows [start + i * rows_each, start + (i + 1) * rows_each)."""

    bank: Bank
    slots: Sequence[int]
    start: int = 0
    rows_each: int | None = None  # None: one slot has the whole batch, whatever its size
    seeds: Sequence[int] = ()  # of dropout, one for each row; empty: no dropout
    index: Tensor | None = None  # the slots, where they are on the device
    by_index: bool = False  # they are read there alone, so that other slots could be
    is_paired: bool = False  # the last has no rows: in the layers the only other is paired with it, which would be alone (MIN_SLOTS)
    layers: Mapping[str, ActiveLayer] = field(default_factory=dict[str, ActiveLayer])  # by module
    noise: Tensor | None = None  # share of noise in each of its rows, once its denoiser is told

    @property
    def method(self) -> AdapterMethod:
        return self.bank.method

    def load_weights(self) -> None:
        """Fetches the weights from the bank for one forward pass."""
        bank = self.bank
        weights = _by_module(bank.layout.pieces, bank(self.slots, self.index, by_index=self.by_index))
        if bank.began is not None:
            began = _by_module(bank.layout.pieces, (part for _, part in bank.layout.split(self._of(bank.began))))
            weights = {module: now if VECTORS in now else dict(doubled(now, began[module], rank_at=1)) for module, now in weights.items()}
        scalings = torch.unbind(self._of(bank.scaling), dim=1)
        self.layers = {
            module: ActiveLayer(self, now, scalings[bank.column[module]], bank.dropout[module] if self.seeds else 0.0)
            for module, now in weights.items()
        }

    def _of(self, kept: Tensor) -> Tensor:
        """Their rows of what the bank keeps."""
        return self.bank.rows(kept, self.slots, self.index, by_index=self.by_index)

    def rows(self, batch: int) -> slice:
        """The rows of these slots in a batch of that many rows."""
        return slice(self.start, self.start + self.num_served * (self.rows_each or batch))

    @property
    def num_served(self) -> int:
        """Those that have rows; they come first."""
        return len(self.slots) - self.is_paired

    def paired(self, rows: Tensor) -> Tensor:
        """With rows for the slot that has none."""
        return pairing.paired(rows) if self.is_paired else rows

    def served(self, rows: Tensor) -> Tensor:
        """Without them."""
        return pairing.unpaired(rows) if self.is_paired else rows

    def see_noise(self, shares: Tensor) -> None:
        """`shares`: of all rows of the batch, or one for all."""
        if self.rows_each is None and bool((shares == shares[0]).all()):
            shares = shares[:1]  # as where a picture is drawn
        self.noise = shares if len(shares) == 1 else self.paired(shares[self.rows(len(shares))])


def _by_module(pieces: Sequence[Piece], parts: Iterable[Tensor]) -> dict[str, dict[str, Tensor]]:
    """By the pieces' modules, then roles."""
    found: dict[str, dict[str, Tensor]] = {}
    for piece, part in zip(pieces, parts, strict=True):
        found.setdefault(piece.module, {})[piece.role] = part
    return found
