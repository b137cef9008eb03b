"""The rows of one pass as tensors: noised latents, conditioning, targets and weights of every style, and padding rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.families.protocol import Conditioning, Family
from trainer.losses.protocol import Loss
from trainer.objectives.draws import Noised
from trainer.pack.member import Member
from trainer.pack.passes import Block, Pass
from trainer.staging import OnePiece, in_one_piece, together

PADDING = -1
_CONDITIONING, _SLOTS = "conditioning.", "slots."  # of names among all that is brought to the device


@dataclass(frozen=True)
class PackBatch:
    """What one forward pass sees; on the training device. Padding rows are some row once more, with no share in any loss."""

    noisy: Tensor  # (rows, channels, h, w)
    times: Tensor  # (rows,)
    target: Tensor  # shaped as noisy
    weight: Tensor  # (rows,)
    scales: Tensor  # (rows,), as losses take them
    shares: Tensor  # (rows,): of a row's loss in the loss of its style's step, as that is scaled
    masks: Tensor | None  # (rows, 1, h, w), how much each place counts; None: no style of the pass has any
    conditioning: Conditioning  # by name, each (rows, ...)
    captions: tuple[str, ...]
    styles: tuple[int, ...]  # of each row
    slots: tuple[Tensor, ...]  # of each of the pass's slot groups, (slots,)
    dropout_seeds: tuple[list[int], ...]  # of the rows of each; empty without dropout

    def losses(self, predicted: Tensor, members: Sequence[Member]) -> Tensor:
        """The weighted loss of each row, (rows,), fp32, by its own style's objective."""
        losses = {_loss_of(members[style]) for style in self.styles if style != PADDING}
        if len(losses) == 1:
            loss, is_masked = losses.pop()
            return loss(predicted, self.target, self.scales, self.masks if is_masked else None) * self.weight
        rows = [self._row_loss(row, predicted, members[max(style, 0)]) for row, style in enumerate(self.styles)]
        return torch.cat(rows) * self.weight

    def _row_loss(self, row: int, predicted: Tensor, member: Member) -> Tensor:
        """(1,). A style without masks has its own plain mean, to the bit, also beside one with masks."""
        (loss, is_masked), only = _loss_of(member), slice(row, row + 1)
        masks = self.masks[only] if is_masked and self.masks is not None else None
        return loss(predicted[only], self.target[only], self.scales[only], masks)


def _loss_of(member: Member) -> tuple[Loss, bool]:
    """And whether it takes a mask."""
    return member.objective.loss, member.is_masked


@dataclass(frozen=True)
class _Rows:
    """Rows of one style."""

    noised: Noised
    mask: Tensor | None
    conditioning: Conditioning
    captions: Sequence[str]

    @classmethod
    def of(cls, block: Block, member: Member, family: Family) -> "_Rows":
        captions = member.captions(block.examples)
        conditioning = member.conditioning(family, [each.sample for each in block.examples], captions)
        noised, mask = member.noised(block.examples), member.mask([each.sample for each in block.examples])
        if mask is not None:
            noised = replace(noised, weight=noised.weight * member.masking.rows(mask))
        return cls(noised, mask, conditioning, captions)


@dataclass(frozen=True)
class Gathered:
    """What a pass brings to the device, still the host's."""

    tensors: Mapping[str, Tensor]
    captions: tuple[str, ...]
    styles: tuple[int, ...]
    seeds: tuple[list[int], ...]
    piece: OnePiece | None = None  # of all of them, once they were staged

    def staged(self, device: torch.device) -> "Gathered":
        """Where the device need only fetch it."""
        return self if device.type == "cpu" else replace(self, piece=in_one_piece(self.tensors, device))

    def there(self, device: torch.device) -> PackBatch:
        there = together(self.tensors, device) if self.piece is None else self.piece.there(device)
        slots = [there.pop(f"{_SLOTS}{number}") for number in range(len(self.seeds))]
        conditioning = {name: there.pop(f"{_CONDITIONING}{name}") for name in _names(self.tensors, _CONDITIONING)}
        masks = there.pop("masks", None)
        return PackBatch(
            **there,
            masks=masks,
            conditioning=conditioning,
            captions=self.captions,
            styles=self.styles,
            slots=tuple(slots),
            dropout_seeds=self.seeds,
        )


def assemble(each: Pass, members: Sequence[Member], family: Family, device: torch.device) -> PackBatch:
    return gathered(each, members, family).there(device)


def failing_in(each: Pass, members: Sequence[Member], family: Family) -> tuple[int, Exception] | None:
    """The style whose rows of the pass cannot be drawn, and why; None: those of all can."""
    for slot_group in each.slot_groups:
        for block in slot_group.blocks:
            try:
                _Rows.of(block, members[block.style], family)
            except Exception as error:
                return block.style, error
    return None


def gathered(each: Pass, members: Sequence[Member], family: Family) -> Gathered:
    """Draws a pass's rows, one slot group after the other."""
    rows: list[_Rows | int] = []  # an int: that many padding rows
    styles: list[int] = []
    seeds: list[list[int]] = []
    for slot_group in each.slot_groups:
        seeds.append([seed for block in slot_group.blocks for seed in members[block.style].dropout_seeds(block.examples)])
        for block in slot_group.blocks:
            rows.append(_Rows.of(block, members[block.style], family))
            styles += [block.style] * slot_group.rows_each
    if each.num_padding:
        rows.append(each.num_padding)
        styles += [PADDING] * each.num_padding
    shares = torch.tensor([0.0 if style == PADDING else _share(members[style]) for style in styles])
    slots = [torch.tensor(slot_group.slots) for slot_group in each.slot_groups]
    captions = [caption for part in rows for caption in ([""] * part if isinstance(part, int) else part.captions)]
    return Gathered(_tensors(rows, shares, slots), tuple(captions), tuple(styles), tuple(seeds))


def _tensors(rows: Sequence[_Rows | int], shares: Tensor, slots: Sequence[Tensor]) -> dict[str, Tensor]:
    """All that the device needs of a pass, by name."""
    drawn = _stacked([part if isinstance(part, int) else vars(part.noised) for part in rows])
    conditioning = _stacked([part if isinstance(part, int) else part.conditioning for part in rows])
    masks = _masks(rows, drawn["noisy"])
    return {
        **drawn,
        "shares": shares,
        **({} if masks is None else {"masks": masks}),
        **{f"{_CONDITIONING}{name}": tensor for name, tensor in conditioning.items()},
        **{f"{_SLOTS}{number}": tensor for number, tensor in enumerate(slots)},
    }


def _names(tensors: Mapping[str, Tensor], start: str) -> list[str]:
    return [name.removeprefix(start) for name in tensors if name.startswith(start)]


def _masks(rows: Sequence[_Rows | int], noisy: Tensor) -> Tensor | None:
    """All of a row counts where it has no mask."""
    if all(isinstance(part, int) or part.mask is None for part in rows):
        return None
    masks, start = torch.ones(len(noisy), 1, *noisy.shape[-2:]), 0
    for part in rows:
        size = part if isinstance(part, int) else len(part.captions)
        if not isinstance(part, int) and part.mask is not None:
            masks[start : start + size] = part.mask
        start += size
    return masks


def _stacked(parts: Sequence[Mapping[str, Tensor] | int]) -> dict[str, Tensor]:
    """Tensors of the same name one after the other; an int stands for a row that is there, that many times.

    Not for zeros: of a caption whose mask hides every token a family may make what is no number, which no share of 0 takes away.
    """
    real = next(part for part in parts if not isinstance(part, int))

    def filling(like: Tensor, count: int) -> Tensor:
        row = like[:1].nan_to_num(posinf=0.0, neginf=0.0)  # what is no number in one style's row must not enter another's slot
        return row.expand(count, *like.shape[1:])

    def stacked(name: str, like: Tensor) -> Tensor:
        whole = [filling(like, part) if isinstance(part, int) else part[name] for part in parts]
        return torch.cat(whole) if len(whole) > 1 else whole[0]

    return {name: stacked(name, like) for name, like in real.items()}


def _share(member: Member) -> float:
    """A micro-batch's loss is the mean over its rows, a step's the mean over its micro-batches, times the style's loss scale."""
    training = member.spec.training
    return member.loss_scale / (training.micro_batch_size * training.gradient_accumulation_steps)
