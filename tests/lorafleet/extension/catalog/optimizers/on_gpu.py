"""An optimizer whose kernels are a GPU's."""

from math import prod

from lorafleet.catalog.optimizer import Optimizer

FACTS = Optimizer(name="on_gpu", title="On a GPU", state_bytes=prod, is_elementwise=True, needs_gpu=True)
