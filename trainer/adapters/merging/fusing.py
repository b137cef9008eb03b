"""Adapters fused into their base: a folder like the base's, whose weights are what the adapters make of them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lorafleet.errors import InvalidInput
from trainer.adapters.files import base_weights, updates
from trainer.adapters.files.contents import Module
from trainer.adapters.merging.combining import Terms
from trainer.typed_torch import vector_norm


@dataclass(frozen=True)
class Fused:
    """`error`: the size of what rounding to the base's own precision took from the updates, over their size."""

    num_modules: int
    error: float


def fuse(base: Path, terms: Terms, target: Path) -> Fused:
    """Writes the whole folder. One tensor after the other is changed; of a file all are in memory at once.

    Raises InvalidInput: a layer is not there, or of another shape. What is in `target` then is for the caller to remove.
    """
    parts = sorted({path.partition(".")[0] for path in terms})
    changed = {path for part in parts for path in base_weights.weight_files(base, part)}
    shutil.copytree(base, target, ignore=lambda folder, names: [name for name in names if Path(folder) / name in changed])
    found, lost, whole = set[str](), 0.0, 0.0
    for path in sorted(changed):
        written = _Rewritten(path, path.parent.name, terms)
        save_file(written.tensors, target / path.relative_to(base), written.metadata)
        found, lost, whole = found | written.found, lost + written.lost, whole + written.whole
    if missing := sorted(terms.keys() - found):
        raise InvalidInput(f"{base} has no weights of {missing[0]}: the adapter is of another base")
    return Fused(len(found), (lost / whole) ** 0.5 if whole else 0.0)


class _Rewritten:
    """One file of a base with the adapters in it. `lost`, `whole`: squares of the sizes of what was rounded away, and of the updates."""

    def __init__(self, path: Path, part: str, terms: Terms) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.found, self.lost, self.whole = set[str](), 0.0, 0.0
        with safe_open(path, "pt") as file:
            self.metadata: dict[str, Any] = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118  no mapping
                tensor: Tensor = file.get_tensor(name)
                module = base_weights.one_of(terms.keys(), part, name)
                self.tensors[name] = tensor if module is None else self._with(module, tensor, terms[module])

    def _with(self, module: str, weight: Tensor, terms: Sequence[tuple[float, Module]]) -> Tensor:
        exact = weight.double()
        for scale, each in terms:
            update = updates.update(each, weight)
            if update.numel() != weight.numel():
                there, wanted = tuple(weight.shape), tuple(update.shape)
                raise InvalidInput(f"{module} is {there} in the base, and the adapter's update of it is {wanted}: it is of another base")
            exact = exact + scale * update.view_as(exact)
        self.found.add(module)
        rounded = exact.to(weight.dtype)
        self.lost += float(vector_norm((rounded.double() - exact).flatten())) ** 2
        self.whole += float(vector_norm((exact - weight.double()).flatten())) ** 2
        return rounded
