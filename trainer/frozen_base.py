"""A base model's parts in this process: loaded when first asked for, and kept for the next pack on the same base."""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from lorafleet.catalog.family import PartKind
from trainer.families import family
from trainer.families._clip import without_last_layers
from trainer.prepare import base_copy
from trainer.prepare.base_model import BaseModel


class LazyParts(Mapping[str, Any]):
    """Parts by name, each loaded when it is first asked for, and kept as long as this is."""

    def __init__(self, load: Callable[[str], Any], names: Collection[str], kept: Mapping[str, Any] = MappingProxyType({})) -> None:
        """`kept`: parts that are others' to load and to keep."""
        self._load, self._names, self._kept = load, names, kept
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._kept:
            return self._kept[name]
        if name not in self._names:
            raise KeyError(name)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self._kept  # without loading it

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._names, *self._kept]))

    def __len__(self) -> int:
        return len({*self._names, *self._kept})


class FrozenBase:
    """The parts of one base at one precision."""

    def __init__(self, base: BaseModel, precision: str, device: torch.device) -> None:
        self.base, self.precision, self.device = base, precision, device
        self.family = family(base.family)
        there = self.family.facts.without(base.absent).parts
        kept = [part.name for part in there if part.kind is not PartKind.AUTOENCODER]
        self.parts: Mapping[str, Any] = LazyParts(self.load_part, kept)

    def serves(self, base: BaseModel, precision: str, device: torch.device) -> bool:
        return (self.base.identity, self.precision, self.device) == (base.identity, precision, device)

    def load(self) -> None:
        """Loads what every pack needs, so that a base that cannot be loaded is found before anything depends on it."""
        facts = self.family.facts
        _ = self.parts[facts.denoiser.name], [self.parts[part.name] for part in facts.of_kind(PartKind.SCHEDULER)]

    @cached_property
    def path(self) -> Path:
        return base_copy.materialise(self.base)

    def with_autoencoder(self) -> Mapping[str, Any]:
        """All parts; the autoencoder, which only encoding and drawing need, is let go with what is returned."""
        return LazyParts(self.load_part, [self.family.facts.autoencoder.name], self.parts)

    def load_part(self, name: str) -> Any:
        facts = self.base.facts
        part = self.family.load(name, self.path, facts.tokens.get(name, facts.max_tokens))
        match self.family.facts.part(name).kind:
            case PartKind.DENOISER:
                return (part.to(torch.bfloat16) if self.precision == "bf16" else part).to(self.device)
            case PartKind.TEXT_ENCODER:
                return without_last_layers(part, self.base.facts.num_skipped_layers).to(self.device)
            case PartKind.AUTOENCODER:
                return part.to(self.device)
            case _:
                return part

    def pipeline(self) -> Any:
        """A diffusers pipeline that draws with these parts, and with the adapters that are on them."""
        return self.family.pipeline(self.with_autoencoder(), self.path, self.base.facts.scheduler)
