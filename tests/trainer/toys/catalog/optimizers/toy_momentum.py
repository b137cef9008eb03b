"""A toy optimizer: gradient descent with momentum."""

from math import prod

from lorafleet.catalog.method import Shape
from lorafleet.catalog.optimizer import Optimizer


def _state_bytes(shape: Shape) -> int:
    return 4 * prod(shape)


FACTS = Optimizer(
    name="toy_momentum", title="Gradient descent with momentum", state_bytes=_state_bytes, is_elementwise=True, has_one_rate=True
)
