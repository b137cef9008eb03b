"""What bitsandbytes' optimizers of 8-bit state share: the tables that their numbers stand for are theirs, and not kept."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_TABLES = {"qmap1": ("state1", "dynamic"), "qmap2": ("state2", "udynamic")}  # of the mean, and of the mean square


def tables(optimizer: Any, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """For a tensor whose state is 8-bit; small ones are held in fp32."""
    if "absmax1" not in state:
        return {}
    device = state["absmax1"].device
    return {name: optimizer.name2qmap[table].to(device) for name, (of, table) in _TABLES.items() if of in state}
