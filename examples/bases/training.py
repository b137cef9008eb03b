"""Trains a kind of base on captioned latents, and keeps the running mean of its weights. Knows no kind."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from examples.bases.base import Kind, rate_at
from examples.bases.pictures import Captioned

CAPTION_DROPOUT = 0.1  # so that guidance has something to lead away from
LONGEST_MEAN = 0.998  # of the running mean of weights: some 500 steps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and in which batches."""

    steps: int  # over which the rates go up and down
    until: int  # the last step that is done
    batch: int
    seed: int
    every: int  # steps between two looks at it
    warmup: int = 50


def train(kind: Kind, rows: Captioned, plan: Plan, look: Callable[[int, str], None]) -> None:
    """Leaves the mean of its weights in the kind. `look` is called with that in place too, every so many steps and at the end."""
    optimizer = torch.optim.AdamW([{"params": list(each.module.parameters()), "lr": each.rate} for each in kind.trained], betas=(0.9, 0.99))
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, plan.steps, plan.warmup))
    modules = [each.module for each in kind.trained]
    means = [copy.deepcopy(module) for module in modules]
    generator = torch.Generator().manual_seed(plan.seed)
    batches = _batches(len(rows.captions), plan.batch, generator)
    began, recent = time.monotonic(), 0.0
    for step in range(1, plan.until + 1):
        which = next(batches)
        kept = torch.rand(len(which), generator=generator) >= CAPTION_DROPOUT
        loss = kind.loss(rows, which, kept, generator).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight for module in modules for weight in module.parameters()], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
        _approach(means, modules, min(LONGEST_MEAN, step / (step + 10)))
        recent += (loss.item() - recent) / min(step, 100)
        if step % plan.every == 0 or step == plan.until:
            with _in_place(modules, means):
                look(step, f"{recent:.4f} of late, {held_loss(kind, rows):.4f} of the mean, {time.monotonic() - began:.0f} s")
    for module, mean in zip(modules, means, strict=True):
        module.load_state_dict(mean.state_dict())


@torch.no_grad()
def held_loss(kind: Kind, rows: Captioned, count: int = 256) -> float:
    """With the same rows, times and noise whenever it is asked."""
    generator = torch.Generator().manual_seed(0)
    which = torch.randperm(len(rows.captions), generator=generator)[:count]
    return float(kind.loss(rows, which, torch.ones(len(which), dtype=torch.bool), generator).mean())


def _batches(rows: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Every row once, in another order each time; what is left of a round begins the next."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(rows, generator=generator)])
        yield left[:batch]
        left = left[batch:]


@torch.no_grad()
def _approach(means: Sequence[nn.Module], modules: Sequence[nn.Module], keep: float) -> None:
    for mean, module in zip(means, modules, strict=True):
        for slow, fast in zip(mean.parameters(), module.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)


@contextmanager
def _in_place(modules: Sequence[nn.Module], means: Sequence[nn.Module]) -> Iterator[None]:
    """The means' weights in the modules, for a while."""
    own = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    for module, mean in zip(modules, means, strict=True):
        module.load_state_dict(mean.state_dict())
    try:
        yield
    finally:
        for module, before in zip(modules, own, strict=True):
            module.load_state_dict(before)
