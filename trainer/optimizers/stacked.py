"""One torch optimizer over all banks: every row, which is a style's whole adapter, clipped and stepped by its own optimizer.

A style's gradient norm is a row's norm, and nothing of one row enters another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.optimizers import OPTIMIZERS, moving_average
from trainer.optimizers.protocol import Averaging, Clipping, Kept, Row, RowOptimizer, StyleUpdate, Tensors
from trainer.typed_torch import numbers, vector_norm


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
        groups = [{"params": [bank.flat], "bank": number, "updates": (), "finite": []} for number, bank in enumerate(banks)]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            parameter = group["params"][0]
            if parameter.grad is not None:
                group["finite"] = self._step(group["bank"], parameter, parameter.grad, group["updates"])

    def _step(self, bank: int, parameter: Tensor, gradient: Tensor, updates: Sequence[StyleUpdate]) -> list[bool]:
        """Whether each style's gradient was finite."""
        is_part = parameter.ndim == 1
        state = self.state_of(parameter, bank)
        rows: list[Row] = []
        for slot, update in enumerate(updates):
            row = gradient if is_part else gradient[slot]
            kept = state if is_part else {key: tensor[slot] for key, tensor in state.items()}
            rows.append(Row(update, parameter if is_part else parameter[slot], row, kept, self._clipping(row, update)))
        self.rows_by[bank].step(rows, self.tensors_of(parameter, bank))
        if moving_average.KEY in state:
            for row in rows:
                moving_average.follow(row)
        return [bool(finite) for finite in numbers(torch.stack([row.clipping.is_finite for row in rows]))] if rows else []

    def _clipping(self, gradient: Tensor, update: StyleUpdate) -> Clipping:
        """By the inverse of clip_grad_norm_'s factor, and by the loss scale: a power of two, which changes no bit."""
        norm, most = vector_norm(gradient) / update.loss_scale if self.clips else gradient.new_zeros(()), update.spec.max_grad_norm
        divisor = ((norm + 1e-6) / most).clamp(min=1.0) if most else torch.ones_like(norm)
        return Clipping(divisor * update.loss_scale, norm.isfinite())

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
