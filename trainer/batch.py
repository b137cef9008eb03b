"""The rows of one pass as tensors: noised latents, captions, targets and weights of every style, and padding rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import objective
from trainer.frozen_base import FrozenBase
from trainer.member import Member
from trainer.objective import MicroBatch
from trainer.passes import Pass

PADDING = -1


@dataclass(frozen=True)
class PackBatch:
    """What one forward pass sees; on the training device. Padding rows are zeros with weight 0."""

    noisy: Tensor  # (rows, channels, h, w)
    timesteps: Tensor  # (rows,)
    target: Tensor  # shaped as noisy
    weight: Tensor  # (rows,)
    shares: Tensor  # (rows,): of a row's loss in the loss of its style's step
    text: Tensor  # (rows, tokens, width): cached embeddings
    captions: tuple[str, ...]
    styles: tuple[int, ...]  # of each row
    dropout_seeds: dict[int, list[int]]  # of the rows of each bank that has dropout

    def losses(self, predicted: Tensor) -> Tensor:
        """Weighted mean squared error of each row, (rows,), fp32."""
        return objective.row_losses(predicted, self.target, self.weight)

    def totals(self, row_losses: Tensor) -> Iterator[tuple[int, float]]:
        """The sum over each style's rows."""
        for style, loss in zip(self.styles, row_losses.detach().double().cpu().tolist(), strict=True):
            if style != PADDING:
                yield style, loss

    def tokens(self, base: FrozenBase) -> Tensor:
        """Token ids of the captions, where the text encoder trains too."""
        return base.family.tokenize(base.tokenizer, self.captions)


def assemble(each: Pass, members: Sequence[Member], base: FrozenBase) -> PackBatch:
    """Draws a pass's rows, one slot group after the other."""
    rows: list[MicroBatch | int] = []  # an int: that many padding rows
    styles: list[int] = []
    seeds: dict[int, list[int]] = {}
    for slot_group in each.slot_groups:
        for block in slot_group.blocks:
            rows.append(members[block.style].micro_batch(block.examples, base))
            styles += [block.style] * slot_group.rows_each
            seeds.setdefault(slot_group.bank, []).extend(members[block.style].dropout_seeds(block.examples))
        if slot_group.idle_slot is not None:
            rows.append(slot_group.rows_each)
            styles += [PADDING] * slot_group.rows_each
            if seeds[slot_group.bank]:
                seeds[slot_group.bank] += [0] * slot_group.rows_each
    if each.num_padding:
        rows.append(each.num_padding)
        styles += [PADDING] * each.num_padding
    return _joined(rows, styles, members, seeds)


def _joined(rows: Sequence[MicroBatch | int], styles: Sequence[int], members: Sequence[Member], seeds: dict[int, list[int]]) -> PackBatch:
    real = next(part for part in rows if isinstance(part, MicroBatch))
    text = _text(rows, styles, members)

    def joined(name: str) -> Tensor:
        like = getattr(real, name)
        return torch.cat([like.new_zeros(part, *like.shape[1:]) if isinstance(part, int) else getattr(part, name) for part in rows])

    each_row = [0.0 if style == PADDING else _share(members[style]) for style in styles]
    return PackBatch(
        noisy=joined("noisy"),
        timesteps=joined("timesteps"),
        target=joined("target"),
        weight=joined("weight"),
        shares=torch.tensor(each_row, device=real.noisy.device),
        text=text,
        captions=tuple(caption for part in rows for caption in ([""] * part if isinstance(part, int) else part.captions)),
        styles=tuple(styles),
        dropout_seeds={bank: found for bank, found in seeds.items() if found},
    )


def _share(member: Member) -> float:
    """A micro-batch's loss is the mean over its rows, a step's the mean over its micro-batches."""
    training = member.spec.training
    return 1 / (training.micro_batch_size * training.gradient_accumulation_steps)


def _text(rows: Sequence[MicroBatch | int], styles: Sequence[int], members: Sequence[Member]) -> Tensor:
    parts: list[Tensor] = []
    at = 0
    for part in rows:
        if isinstance(part, int):
            parts.append(torch.zeros(part, *parts[0].shape[1:]))
            at += part
        else:
            parts.append(members[styles[at]].encoded.text(part.captions))
            at += len(part.captions)
    return torch.cat(parts)
