"""AdamW (Loshchilov and Hutter 2019)."""

from math import prod

from lorafleet.catalog.method import Shape
from lorafleet.catalog.optimizer import Optimizer


def _state_bytes(shape: Shape) -> int:
    return 2 * 4 * prod(shape)  # the means of the gradient and of its square


FACTS = Optimizer(name="adamw", title="AdamW (Loshchilov and Hutter 2019)", state_bytes=_state_bytes, is_elementwise=True)
