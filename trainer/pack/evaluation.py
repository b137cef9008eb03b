"""How good an adapter is: the held-out loss at fixed times and noise. The objective and the loss are those it trains with."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.keyed import Purpose
from trainer.pack.member import Member
from trainer.pack.state import PackState
from trainer.typed_torch import from_array, numbers

NUM_TIMES = 8  # for each held-out picture, spread evenly over the schedule
BATCH = 8  # part of the result to the last bit, so fixed

Pair = tuple[int, float]  # a picture and a time


def held_out_loss(pack: PackState, member: Member) -> float | None:
    """The mean loss over the held-out pictures, unweighted; None without such pictures. Collective.

    The workers share the batches. Under ZeRO 3, whose forward is collective, each runs equally many.
    """
    if not member.style.held_out_crops:
        return None
    batches, group = _batches(member), pack.group
    total = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(batches), group.world_size):
        index = start + group.rank
        if index < len(batches):
            errors = _errors(pack, member, batches[index])
            total += torch.tensor([errors.sum().item(), len(errors)], dtype=torch.float64)
        elif pack.engine.zero_stage == 3:
            _errors(pack, member, batches[-1])
    error, count = numbers(group.sum(total))
    return error / count


def _batches(member: Member) -> list[list[Pair]]:
    """Each of latents of one shape."""
    times = member.objective.held_out_times(NUM_TIMES)
    by_shape: dict[torch.Size, list[Pair]] = {}
    for sample in member.style.held_out_crops:
        by_shape.setdefault(member.encoded.latents[sample].shape, []).extend((sample, time) for time in times)
    return [alike[start : start + BATCH] for alike in by_shape.values() for start in range(0, len(alike), BATCH)]


@torch.no_grad()
def _errors(pack: PackState, member: Member, batch: Sequence[Pair]) -> Tensor:
    """The loss of each pair, (rows,), on the CPU."""
    latents = torch.stack([member.encoded.latents[sample] for sample, _ in batch])
    noise = _noise(member, batch, tuple(latents.shape[1:]))
    times = torch.tensor([time for _, time in batch])
    noisy = member.objective.noisy(latents, noise, times)
    predicted = _predicted(pack, member, noisy, times, [sample for sample, _ in batch]).float().cpu()
    target, mask = member.objective.target(latents, noise, times), member.mask([sample for sample, _ in batch])
    return member.objective.loss(predicted, target, member.objective.scales(times), mask)


def _predicted(pack: PackState, member: Member, noisy: Tensor, times: Tensor, samples: Sequence[int]) -> Tensor:
    captions = [member.style.captions[sample] for sample in samples]
    conditioning = member.conditioning(pack.base.family, samples, captions)
    there = {name: rows.to(pack.device) for name, rows in conditioning.items()}
    return pack.engine(pack.alone(member), noisy.to(pack.device), times.to(pack.device), there, captions)


def _noise(member: Member, batch: Sequence[Pair], shape: tuple[int, ...]) -> Tensor:
    """Keyed by picture and time."""
    generators = [member.style.key.generator(Purpose.HELD_OUT_NOISE, sample, str(time)) for sample, time in batch]
    return from_array(np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators]))
