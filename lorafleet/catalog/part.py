"""What a part of a base is: a folder, the classes that are built of it, and what its config must say."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from lorafleet.contract.weight_files import DIFFUSERS_NAME, TRANSFORMERS_NAME

Config = Mapping[str, Any]  # as its JSON says
Problems = Iterator[str]  # each is the end of a sentence whose subject is the file
# Modules to their names in another code. Those with one name are one layer there, fused: their outputs lie one after another, in the
# order of this mapping.
Names = Mapping[str, str]


class Layers(NamedTuple):
    """The layers of a denoiser as another code has them."""

    names: Names = MappingProxyType({})
    num_outputs: Mapping[str, int] = MappingProxyType({})  # of our modules

    def fused(self) -> dict[str, list[str]]:
        """By their name there the layers that are several of our modules, with these in order."""
        found: dict[str, list[str]] = {}
        for module, name in self.names.items():
            found.setdefault(name, []).append(module)
        return {name: modules for name, modules in found.items() if len(modules) > 1}


class PartKind(StrEnum):
    """What a part of a base does."""

    DENOISER = "denoiser"
    AUTOENCODER = "autoencoder"
    TEXT_ENCODER = "text encoder"
    TOKENIZER = "tokenizer"
    SCHEDULER = "scheduler"


CONFIG_FILES = {PartKind.SCHEDULER: "scheduler_config.json", PartKind.TOKENIZER: "tokenizer_config.json"}  # config.json of all others


def no_problems(config: Config, family: str) -> Problems:
    yield from ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a base: a folder of that name, and an argument of that name of diffusers' pipeline."""

    name: str
    kind: PartKind
    classes: tuple[str, ...]  # that are built of it, and so the only ones that are imported; the usual one first
    kohya_prefix: str = ""  # of its modules in kohya's files
    target_modules: tuple[str, ...] = ()  # ends of the names of the layers that adapters sit on where a spec names none
    needed: tuple[str, ...] = ()  # what its config must say
    is_large: bool = False  # of a text encoder: may be as large as the denoiser, and is in memory only while it encodes
    most_tokens: int | None = None  # of a text encoder whose config does not say: that its family gives it
    defaults: Config = field(default_factory=dict[str, Any])  # what its class goes by where its config does not say
    problems: Callable[[Config, str], Problems] = no_problems  # of its config, for the family of that name
    levels: str = "block_out_channels"  # of an autoencoder: a list of its config, of which sides are halved from each to the next
    is_optional: bool = False  # a base may be without it: its model_index.json then names [null, null]

    @property
    def library(self) -> str:
        return "transformers" if self.kind in (PartKind.TEXT_ENCODER, PartKind.TOKENIZER) else "diffusers"

    @property
    def weights_name(self) -> str | None:
        """The name under which the library looks for its weights; None: it has none."""
        match self.kind:
            case PartKind.DENOISER | PartKind.AUTOENCODER:
                return DIFFUSERS_NAME
            case PartKind.TEXT_ENCODER:
                return TRANSFORMERS_NAME
            case _:
                return None

    @property
    def config(self) -> str:
        """Path of its config in the base."""
        return f"{self.name}/{CONFIG_FILES.get(self.kind, 'config.json')}"
