"""The facts of a model family: its pipeline, the parts of a base, and what the files and the memory model must know of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from lorafleet.contract.weight_files import DIFFUSERS_NAME, TRANSFORMERS_NAME

Config = Mapping[str, object]


class PartKind(StrEnum):
    """What a part of a base does."""

    DENOISER = "denoiser"
    AUTOENCODER = "autoencoder"
    TEXT_ENCODER = "text encoder"
    TOKENIZER = "tokenizer"
    SCHEDULER = "scheduler"


CONFIG_FILES = {PartKind.SCHEDULER: "scheduler_config.json", PartKind.TOKENIZER: "tokenizer_config.json"}  # config.json of all others


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a base: a folder of that name, and an argument of that name of diffusers' pipeline."""

    name: str
    kind: PartKind
    classes: tuple[str, ...]  # that are built of it
    kohya_prefix: str = ""  # of its modules in kohya's files
    target_modules: tuple[str, ...] = ()  # ends of the names of the layers that adapters sit on where a spec names none

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


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family. `parts` are in the order in which its pipeline names them."""

    name: str
    title: str  # for people
    pipeline: str  # diffusers' class, which model_index.json names
    parts: tuple[Part, ...]
    values_per_pixel: int  # kept for the backward pass, for each latent pixel and channel of the denoiser's first block
    first_layer: str  # of the denoiser, whose first dimension are the first block's channels
    architecture: str  # modelspec's name (github.com/Stability-AI/ModelSpec), without "/lora"
    kohya_version: str  # `ss_base_model_version`
    kohya_modules: Callable[[str, str], str] | None = None  # (part, module) -> the module's name in kohya's files, where it is another

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def of_kind(self, kind: PartKind) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.kind == kind)

    @property
    def denoiser(self) -> Part:
        return self.of_kind(PartKind.DENOISER)[0]

    @property
    def autoencoder(self) -> Part:
        return self.of_kind(PartKind.AUTOENCODER)[0]

    @property
    def text_encoders(self) -> tuple[Part, ...]:
        return self.of_kind(PartKind.TEXT_ENCODER)

    @property
    def tokenizers(self) -> tuple[Part, ...]:
        """In the order of the text encoders that take their tokens."""
        return self.of_kind(PartKind.TOKENIZER)

    def targets(self, target_modules: tuple[str, ...], *, text_encoders: bool) -> dict[str, tuple[str, ...]]:
        """By part the ends of the names of the layers that adapters sit on."""
        texts = {part.name: part.target_modules for part in self.text_encoders} if text_encoders else {}
        return {self.denoiser.name: target_modules, **texts}
