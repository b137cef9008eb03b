"""The moving average of an adapter, kept on its row beside what its optimizer keeps.

Its decay warms up as in diffusers' EMAModel and other trainers, so that what an adapter begins with is soon forgotten.
"""

from trainer.optimizers.protocol import Row

KEY = "ema"  # of what is kept, in checkpoints too


def decay(most: float, steps_done: int) -> float:
    """The share of the average that the step after so many leaves: none at first, then min(most, (1 + n) / (10 + n))."""
    return min(most, (1 + steps_done) / (10 + steps_done)) if steps_done else 0.0


def follow(row: Row) -> None:
    """ema + (1 - decay) (weights - ema), after the row's step; as it was where the gradient was not finite."""
    most = row.update.spec.ema_decay
    if most is not None:
        share = 1 - decay(most, row.update.steps_done)
        row.state[KEY].lerp_(row.weights.detach(), share * row.clipping.is_finite)
