"""The layers of a base that adapters sit on while pictures are drawn: each asks what the rows of its pass add."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from trainer.adapters.layers import AdaptedConv2d, AdaptedLinear
from trainer.adapters.layout import Layer
from trainer.generation.stacks import NOTHING, Stacks
from trainer.typed_torch import named_modules


class Places:
    """The frozen parts of a base by name, with what stands on their layers now."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self._parts = parts
        self.layers: dict[str, Layer] = {  # by canonical path, those that adapters can sit on
            f"{name}.{path}": layer
            for name, part in parts.items()
            for path, layer in named_modules(part)
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        self._taken: set[str] = set()
        self._stacks = NOTHING

    def take(self, paths: Collection[str]) -> None:
        """These layers ask from now on. With nothing on them they compute what they did."""
        for path in sorted(set(paths) - self._taken):
            layer = self.layers[path]
            kind = _Linear if isinstance(layer, nn.Linear) else _Conv2d
            self._put(path, kind(layer, path, self))
            self._taken.add(path)

    @property
    def stacks(self) -> Stacks:
        return self._stacks

    @contextmanager
    def with_stacks(self, stacks: Stacks) -> Generator[None]:
        """Within it the parts compute with these adapters, whoever calls them."""
        self.take(stacks.paths)
        before, self._stacks = self._stacks, stacks
        try:
            yield
        finally:
            self._stacks = before

    def _put(self, path: str, layer: nn.Module) -> None:
        part, _, inner = path.partition(".")
        parent, _, name = inner.rpartition(".")
        setattr(self._parts[part].get_submodule(parent), name, layer)


class _Linear(AdaptedLinear):
    def __init__(self, base: nn.Module, module: str, places: Places) -> None:
        super().__init__(base, number=0)
        self.module, self._places = module, places

    def forward(self, x: Tensor) -> Tensor:
        return self._places.stacks.outputs(self, self.module, x)


class _Conv2d(AdaptedConv2d):
    def __init__(self, base: nn.Module, module: str, places: Places) -> None:
        super().__init__(base, number=0)
        self.module, self._places = module, places

    def forward(self, x: Tensor) -> Tensor:
        return self._places.stacks.outputs(self, self.module, x)
