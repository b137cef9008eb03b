"""A base model's parts in this process: loaded when first asked for, and kept for the next pack on the same base."""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from lorafleet.catalog import PRECISIONS, Precision
from lorafleet.catalog.part import Part, PartKind
from trainer.autocast import DTYPES
from trainer.families import family
from trainer.families._clip import without_last_layers
from trainer.families.protocol import Loading
from trainer.prepare import base_copy
from trainer.prepare.base_model import BaseModel
from trainer.weight_stream import WeightStream


class LazyParts(Mapping[str, Any]):
    """Parts by name, each loaded when it is first asked for, and kept as long as this is."""

    def __init__(self, load: Callable[[str], Any], names: Collection[str], kept: Mapping[str, Any] = MappingProxyType({})) -> None:
        """`kept`: where the other parts are, which are others' to load and to keep."""
        self._load, self._names, self._kept = load, names, kept
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            return self._kept[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def has_loaded(self, name: str) -> bool:
        return name in self._loaded

    def forget(self, names: Collection[str]) -> None:
        """They are loaded anew when they are asked for again."""
        for name in names:
            self._loaded.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self._kept  # without loading it

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._names, *self._kept]))

    def __len__(self) -> int:
        return len({*self._names, *self._kept})


class FrozenBase:
    """The parts of one base at one precision."""

    def __init__(self, base: BaseModel, precision: str, device: torch.device) -> None:
        self.base, self.precision, self.device = base, PRECISIONS.get(precision), device
        self.family = family(base.family)
        facts = self.family.facts.without(base.absent)
        self._texts = [part.name for part in facts.text_encoders]
        large = [part.name for part in facts.text_encoders if part.is_large]
        self._passing = [facts.autoencoder.name, *large]
        self.parts = LazyParts(self.load_part, [part.name for part in facts.parts if part.name not in self._passing])

    def serves(self, base: BaseModel, precision: str, device: torch.device) -> bool:
        return (self.base.identity, self.precision.name, self.device) == (base.identity, precision, device)

    def read_from(self, base: BaseModel) -> None:
        """Another place with the same: what is still to be loaded is read from there, for the first may be gone, or another's."""
        self.base = base

    @property
    def encodes_first(self) -> bool:
        """Whether its text encoders are to be gone before the denoiser is loaded."""
        return any(part.is_large for part in self.family.facts.without(self.base.absent).text_encoders)

    def load(self, *, trains_text: bool = False) -> None:
        """Loads what a pack needs at every step, so that a base that cannot be loaded is found before anything depends on it.

        `trains_text`: text encoders are among it; else they are in memory only while they encode or draw.
        """
        facts = self.family.facts
        if trains_text:
            _ = [self.parts[name] for name in self._texts if name in self.parts]
        else:
            self.parts.forget(self._texts)
        _ = [self.parts[part.name] for part in facts.of_kind(PartKind.SCHEDULER)]
        if not self.encodes_first:
            _ = self.parts[facts.denoiser.name]

    @cached_property
    def path(self) -> Path:
        return base_copy.materialise(self.base)

    def for_encoding(self, text: Precision | None = None) -> Mapping[str, Any]:
        """All parts; those that only encoding and drawing need, the autoencoder and text encoders that do not train, go with what is
        returned. `text`: the precision of large text encoders; unset: what is usual beside this base's.
        """
        texts = [name for name in self._texts if name not in self._passing and not self.parts.has_loaded(name)]
        return LazyParts(partial(self.load_part, text=text), [*self._passing, *texts], self.parts)

    def load_part(self, name: str, text: Precision | None = None) -> Any:
        facts = self.family.facts.part(name)
        part = self.family.load(name, self.path, self._loading(facts, text))
        if facts.kind is PartKind.TEXT_ENCODER:
            part = without_last_layers(part, self.base.facts.num_skipped_layers)
        return part.to(self.device) if facts.weights_name else part

    def _loading(self, part: Part, text: Precision | None) -> Loading:
        """The denoiser at the run's precision, large text encoders in what is enough for them with it, everything else in fp32."""
        tokens = self.base.facts.tokens.get(part.name, self.base.facts.max_tokens)
        held = PRECISIONS.get("fp32")
        if part.kind is PartKind.DENOISER:
            held = self.precision
        elif part.is_large:
            held = text or PRECISIONS.get(self.precision.encodes)
        quantised = held.name if held.quantised_bytes is not None else ""
        files = base_copy.streamed(self.base, part.name)
        weights = WeightStream(files, self.base.files) if files else None
        return Loading(tokens, DTYPES[held.computes], quantised, weights)

    def pipeline(self, text: Precision | None = None) -> Any:
        """A diffusers pipeline that draws with these parts, and with the adapters that are on them."""
        return self.family.pipeline(self.for_encoding(text), self.path, self.base.facts.scheduler)
