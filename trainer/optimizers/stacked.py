"""One torch optimizer over all banks: every row, which is a style's whole adapter, clipped and stepped by its own optimizer.

A style's gradient norm is a row's norm, and nothing of one row enters another.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.optimizers import OPTIMIZERS, moving_average, token_deviation
from trainer.optimizers.protocol import Averaging, Clipping, Kept, Row, RowOptimizer, StyleUpdate, Tensors
from trainer.staging import to_device
from trainer.typed_torch import foreach_norm


class StackedOptimizer(torch.optim.Optimizer):
    """One parameter for each bank: its `flat`, or the part of it that ZeRO has given to this rank (then there is one style).

    As any torch optimizer it finds what a step needs in its parameter groups: `updates`, of the bank's styles in the order of
    their slots. It leaves `finite` there: whether each style's gradient was.
    """

    def __init__(self, banks: Sequence[Bank], *, clips: bool) -> None:
        """`clips`: whether gradients are clipped and checked here. ZeRO's partitions are not whole rows; there DeepSpeed clips."""
        self.rows_by: list[RowOptimizer] = [OPTIMIZERS.get(bank.kind.optimizer) for bank in banks]
        self.clips = clips
        self._keeps_average = [bank.kind.keeps_average for bank in banks]
        self._tensors = [Tensors(tuple(p.shape for p in bank.layout.pieces), tuple(p.group for p in bank.layout.pieces)) for bank in banks]
        self._vectors = [token_deviation.places(bank.layout, bank.deviations) for bank in banks]
        groups = [{"params": [bank.flat], "bank": number, "updates": (), "finite": []} for number, bank in enumerate(banks)]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            parameter = group["params"][0]
            if parameter.grad is not None:
                group["finite"] = self._step(group["bank"], parameter, parameter.grad, group["updates"])

    def _step(self, bank: int, parameter: Tensor, gradient: Tensor, updates: Sequence[StyleUpdate]) -> Tensor:
        """Whether each style's gradient was finite, (styles,)."""
        state = self.state_of(parameter, bank)
        weights, gradients, *kept = (_rows(each, parameter)[: len(updates)] for each in (parameter.detach(), gradient, *state.values()))
        if not gradients:
            return torch.ones(0, dtype=torch.bool)
        numbers, divisors, finite, found_inf = self._judged(gradients, updates)
        clippings = map(Clipping, divisors.unbind(), finite.unbind(), found_inf.unbind())
        states = [{key: rows[slot] for key, rows in zip(state, kept, strict=True)} for slot in range(len(updates))]
        rows = list(map(Row, updates, weights, gradients, states, clippings, numbers.unbind()))
        self.rows_by[bank].step(rows, self.tensors_of(parameter, bank))
        for row in rows:
            token_deviation.retract(row, self._vectors[bank])
        if moving_average.KEY in state:
            for row in rows:
                moving_average.follow(row)
        return finite

    def _judged(self, gradients: Sequence[Tensor], updates: Sequence[StyleUpdate]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each row, (rows,): the number of its step, what its gradient is to be divided by, and whether that is finite, or is not.

        It is divided by the inverse of clip_grad_norm_'s factor, and by the loss scale: a power of two, which changes no bit.
        """
        told = [(update.steps_done + 1.0, update.loss_scale, update.spec.max_grad_norm or math.inf) for update in updates]
        numbers, scales, most = to_device(torch.tensor(told), gradients[0].device).unbind(1)
        norms = torch.stack(foreach_norm(gradients)) / scales if self.clips else torch.zeros_like(scales)
        finite = norms.isfinite()
        return numbers, ((norms + 1e-6) / most).clamp(min=1.0) * scales, finite, finite.logical_not().float()

    def tensors_of(self, parameter: Tensor, bank: int) -> Tensors:
        """Those of a row; of a part of one, itself."""
        return Tensors((tuple(parameter.shape),), (0,)) if parameter.ndim == 1 else self._tensors[bank]

    def kept(self, parameter: Tensor, bank: int) -> dict[str, Kept]:
        """What is kept of a row of a parameter, or of a part of one: by its optimizer, and its moving average."""
        tensors = self.tensors_of(parameter, bank)
        average = {moving_average.KEY: Kept((tensors.size,))} if self._keeps_average[bank] else {}
        return {**self.rows_by[bank].kept(tensors), **average}

    def state_of(self, parameter: Tensor, bank: int) -> dict[str, Tensor]:
        """What is kept of a parameter, made when it is first needed: (capacity, ...) of a bank's rows, (...) of a part of one."""
        state = self.state[parameter]
        for key, kept in self.kept(parameter, bank).items():
            if key not in state:
                state[key] = parameter.new_zeros(*parameter.shape[:-1], *kept.shape, dtype=kept.dtype)
        return state

    def evaluated(self, bank: int, slot: int, update: StyleUpdate) -> Tensor | None:
        """The weights that a style is to be judged by, (size,); None: those that it trains."""
        optimizer = self.rows_by[bank]
        gives_average = update.gives_average and update.steps_done > 0  # before the first step there is nothing to average
        if not gives_average and not isinstance(optimizer, Averaging):
            return None
        (parameter,) = (group["params"][0] for group in self.param_groups if group["bank"] == bank)
        state = {key: tensor[slot] for key, tensor in self.state_of(parameter, bank).items()}
        if gives_average or not isinstance(optimizer, Averaging):
            return state[moving_average.KEY]
        return optimizer.evaluated(update, parameter.detach()[slot], state, self.tensors_of(parameter, bank))


def _rows(whole: Tensor, parameter: Tensor) -> Sequence[Tensor]:
    """Of what is kept of a bank's parameter; of a part of one it is a row itself."""
    return (whole,) if parameter.ndim == 1 else whole.unbind()
