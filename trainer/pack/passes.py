"""Which rows go through the model together in a step: a pure plan of forward passes for a pack.

A pass holds rows of one latent shape. In a step every style has its own number of micro-batches; pass n of a shape holds
the n-th of each style that has one. Rows of the same bank and micro-batch size lie together, style by style.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from trainer.adapters.bank import MIN_SLOTS
from trainer.objectives.draws import Draw

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """A style's part of a step: its slot, and a micro-batch for each of its passes."""

    style: int  # number of the style in the pack
    bank: int
    slot: int
    shape: Shape  # of its latents in this step
    micro_batches: Sequence[Sequence[Draw]]


@dataclass(frozen=True)
class Block:
    """Rows of one style."""

    style: int
    slot: int
    examples: Sequence[Draw]


@dataclass(frozen=True)
class SlotGroup:
    """Slots of one bank with the same number of rows each. `idle_slot` pairs one that would be alone, in the layers (see adapters.bank)."""

    bank: int
    rows_each: int
    blocks: Sequence[Block]
    idle_slot: int | None = None

    @property
    def slots(self) -> list[int]:
        return [block.slot for block in self.blocks] + ([] if self.idle_slot is None else [self.idle_slot])

    @property
    def num_rows(self) -> int:
        return len(self.blocks) * self.rows_each


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass, with `num_padding` padding rows at its end."""

    shape: Shape
    slot_groups: Sequence[SlotGroup]
    num_padding: int


@dataclass(frozen=True, kw_only=True)
class PaddingRules:
    """Padding that makes a row's bits independent of its batch (see adapters.bank)."""

    min_slots: int = 1  # of a bank in a pass: 1 or 2
    min_rows: int = 1
    rows_multiple: int = 1

    def num_padding(self, num_rows: int) -> int:
        """Padding rows for a pass of `num_rows`."""
        return max(num_rows + -num_rows % self.rows_multiple, self.min_rows) - num_rows


def padding_rules(device_type: str, num_threads: int) -> PaddingRules:
    """The padding that batch invariance needs on this kind of device (see adapters.bank). On GPUs none would be enough."""
    if device_type != "cpu":
        return PaddingRules(min_slots=MIN_SLOTS)
    return PaddingRules(min_slots=MIN_SLOTS, min_rows=16 if num_threads == 1 else 4, rows_multiple=4)


def passes(work: Sequence[Work], padding: PaddingRules) -> list[Pass]:
    """The passes of a step."""
    found: list[Pass] = []
    for number in range(max(len(each.micro_batches) for each in work)):
        taking_part = [each for each in work if number < len(each.micro_batches)]
        for shape in sorted({each.shape for each in taking_part}):
            slot_groups = _slot_groups([each for each in taking_part if each.shape == shape], number, padding.min_slots)
            found.append(Pass(shape, slot_groups, padding.num_padding(sum(slot_group.num_rows for slot_group in slot_groups))))
    return found


def _slot_groups(work: Sequence[Work], number: int, min_slots: int) -> list[SlotGroup]:
    def place(each: Work) -> tuple[int, int]:
        return each.bank, len(each.micro_batches[number])

    slot_groups: list[SlotGroup] = []
    for (bank, rows_each), members in groupby(sorted(work, key=lambda each: (*place(each), each.slot)), key=place):
        blocks = [Block(each.style, each.slot, each.micro_batches[number]) for each in members]
        alone = len(blocks) < min_slots
        slot_groups.append(SlotGroup(bank, rows_each, blocks, (1 if blocks[0].slot == 0 else blocks[0].slot - 1) if alone else None))
    return slot_groups
