"""An optimizer that needs whole tensors, as those do that keep a mean for each row and each column."""

from lorafleet.catalog.method import Shape
from lorafleet.catalog.optimizer import Optimizer


def _state_bytes(shape: Shape) -> int:
    return 4 * sum(shape)


FACTS = Optimizer(name="whole", title="Whole", state_bytes=_state_bytes, is_elementwise=False)
