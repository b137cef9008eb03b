"""CAME (Luo et al. 2023)."""

from lorafleet.catalog.method import Shape
from lorafleet.catalog.optimizer import Optimizer, copies, factored_bytes


def _state_bytes(shape: Shape) -> int:
    """The mean of the update; the factored mean squares of the gradient and, of whole tensors, of how sure the update is."""
    is_factored = len(shape) > 1
    return copies(1)(shape) + (2 if is_factored else 1) * factored_bytes(shape)


FACTS = Optimizer(name="came", title="CAME (Luo et al. 2023)", state_bytes=_state_bytes, is_elementwise=False, is_adam=False)
