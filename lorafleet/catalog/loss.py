"""The facts of a loss."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a spec's `objective.loss` names."""

    name: str
    title: str  # with its paper
    has_scale: bool = False  # whether it goes by `objective.huber_delta` and its schedule
