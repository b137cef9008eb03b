"""The facts of a model family: its pipeline, the parts of a base, and what the files and the memory model must know of them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from lorafleet import objectives
from lorafleet.catalog.part import Config, Names, Part, PartKind
from lorafleet.catalog.parts import MAX_TOKENS, Sizes, max_tokens, sizes_by_levels
from lorafleet.catalog.presets import Presets
from lorafleet.catalog.single_file import SingleFile

Configs = Mapping[str, Config]  # by part; a part whose config could not be read is not in it
TOKEN = ""  # among `token_keys`: the token itself
MODEL_INDEX = "model_index"  # names in `Configs` what the base's index says, where a fact is asked with it


@dataclass(frozen=True, kw_only=True)
class Label:
    """What the metadata of files calls a base that they were trained on."""

    architecture: str  # modelspec's name (github.com/Stability-AI/ModelSpec), without "/lora"
    kohya_version: str  # `ss_base_model_version`
    more: Mapping[str, str] = field(default_factory=dict[str, str])  # what readers of this family look for besides


def no_misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    yield from ()


def alone_has_its_pipeline(configs: Configs) -> bool:
    return True


def nothing_swapped(modules: Collection[str]) -> tuple[str, ...]:
    return ()


def no_cautions(configs: Configs) -> Iterator[str]:
    yield from ()


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family. `parts` are in the order in which its pipeline names them."""

    name: str
    title: str  # for people
    pipeline: str  # diffusers' class, which model_index.json names
    parts: tuple[Part, ...]
    values_per_pixel: int  # kept for the backward pass, for each latent pixel and channel of the denoiser's first block
    first_layer: str  # of the denoiser, whose first dimension are the first block's channels
    architecture: str  # as of `Label`, where `label` says nothing of one base
    kohya_version: str
    latent_channels: int = 4  # of the cache, for each latent pixel of the autoencoder
    text_values: int = 0  # of the cache, for each caption on a published base, in fp32; 0: not known
    large_text_values: int = 0  # the same, in what text encoders as large as the denoiser compute in
    overflows_fp16: bool = False  # whether its published denoiser is known to
    recomputed_values_per_pixel: int | None = None  # the same where blocks are recomputed; None: its denoiser has none that are
    text_pixels: int = 0  # so many latent pixels take as much as a row's text does: tokens, as many as a patch has pixels for each
    recomputed_text_pixels: int | None = None  # the same where blocks are recomputed; None: as many
    presets: Presets = field(default_factory=dict[str, tuple[str, ...]])  # of target modules
    told_noise: tuple[float, float] = (0.0, 1000.0)  # what its denoiser is told as the time of no noise, and of nothing but noise
    is_it: Callable[[Configs], bool] = alone_has_its_pipeline  # whether a base of its pipeline is of this family
    single_file: SingleFile | None = None  # how its bases lie in one file, where that is taken
    # Of each text encoder the name of a new token's vectors in files; the token itself where there is one. Nothing: it takes none.
    token_keys: tuple[str, ...] = ()
    # Whether the denoiser, as its pipeline calls it, lays the tokens of all rows end to end: no layer can then tell whose is whose.
    lays_rows_end_to_end: bool = False
    has_clip_skip: bool = False  # whether people choose the layer of its text encoder that it goes by
    label: Callable[[Configs], Label] | None = None  # of the base with these configs, in which nothing is wrong
    resolution: int | None = None  # pixels, that its bases are trained at where their configs do not say
    objective: str = objectives.DIFFUSION  # of `trainer.objectives`, that its denoiser is trained for
    sizes: Callable[[Config, Config], Sizes] = sizes_by_levels  # of denoiser and autoencoder
    # (part, what of its config does not fit the other parts or the family), beside what is wrong with a part by itself.
    misfits: Callable[[Configs], Iterator[tuple[str, str]]] = no_misfits
    most_tokens: Callable[[Configs], Mapping[str, int]] | None = None  # by text encoder, where bases of the family differ in it
    cautions: Callable[[Configs], Iterator[str]] = no_cautions  # of configs and MODEL_INDEX; what whoever trains on it should know
    # The denoiser's modules, all of them, to their names in kohya's files, where these are others.
    kohya_modules: Callable[[Collection[str]], Names] | None = None
    # Of its denoiser all modules that adapters may sit on, in bases of any size; None: those of `single_file.original`.
    known_modules: Callable[[], Iterable[str]] | None = None
    diffusers_reads_kohya: bool = True  # whether its pipeline loads kohya's files of it
    # Of the denoiser's modules the ends of the names of those whose outputs have their halves exchanged there.
    kohya_swapped: Callable[[Collection[str]], tuple[str, ...]] = nothing_swapped

    def without(self, absent: Collection[str]) -> Self:
        """The family as a base has it that is without these optional parts."""
        return replace(self, parts=tuple(part for part in self.parts if part.name not in absent))

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

    def tokenizers_of(self, encoders: Collection[str]) -> list[Part]:
        """Of those text encoders; of a family that has none, none."""
        pairs = zip(self.text_encoders, self.tokenizers, strict=False)
        return [tokenizer for encoder, tokenizer in pairs if encoder.name in encoders]

    def max_tokens(self, configs: Configs) -> dict[str, int]:
        """By tokenizer, of which there is none or one for each text encoder, how many tokens of a caption are kept.

        Those of one kind keep alike, for their texts lie side by side.
        """
        most: Mapping[str, int] = self.most_tokens(configs) if self.most_tokens else {}
        own = {
            tokenizer.name: min(most.get(encoder.name, MAX_TOKENS), *(max_tokens(each, configs.get(each.name, {})) for each in pair))
            for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=False)
            for pair in [(tokenizer, encoder)]
        }
        return {each.name: min(own[other.name] for other in self.tokenizers if other.classes == each.classes) for each in self.tokenizers}

    def label_of(self, configs: Configs) -> Label:
        return self.label(configs) if self.label else Label(architecture=self.architecture, kohya_version=self.kohya_version)

    def num_values(self, latent_pixels: int, *, recomputes: bool) -> int:
        """That are kept for the backward pass of one row, for each channel of the first block."""
        if not recomputes or self.recomputed_values_per_pixel is None:
            return self.values_per_pixel * (latent_pixels + self.text_pixels)
        text = self.text_pixels if self.recomputed_text_pixels is None else self.recomputed_text_pixels
        return self.recomputed_values_per_pixel * (latent_pixels + text)

    @property
    def no_recomputation(self) -> str | None:
        """Why blocks are not recomputed, as the end of a sentence; None: they can be."""
        if self.recomputed_values_per_pixel is not None:
            return None
        return f"the denoiser of {self.name} has no blocks that can be computed anew; leave it out"

    @property
    def no_clip_skip(self) -> str | None:
        """Why a clip skip is none, as the end of a sentence whose subject it is; None: it has one."""
        return None if self.has_clip_skip else f"is not known to {self.name}, which goes by the layer that it was trained on; leave it out"

    @property
    def no_new_tokens(self) -> str | None:
        """Why text encoders cannot learn new tokens, as the end of a sentence whose subject these are; None: they can."""
        if self.token_keys:
            return None
        others = " and ".join(dict.fromkeys(part.classes[0] for part in self.text_encoders if not part.classes[0].startswith("CLIP")))
        return (
            f"are for families that read captions with CLIP alone; no reader loads any into {others or 'the text encoders'} of {self.name}"
        )

    def preset(self, name: str | None) -> tuple[str, ...]:
        """The target modules of a preset; None, or one that it has not: the usual ones."""
        return self.presets.get(name or "", self.denoiser.target_modules)

    def no_preset(self, name: str) -> str | None:
        """Why a preset is none of its own, as the end of a sentence; None: it has it."""
        if name in self.presets:
            return None
        return f"no blocks of {self.name} are published that hold it; there is {', '.join(self.presets) or 'none'}"

    def targets(self, target_modules: tuple[str, ...], *, text_encoders: bool) -> dict[str, tuple[str, ...]]:
        """By part the ends of the names of the layers that adapters sit on."""
        texts = {part.name: part.target_modules for part in self.text_encoders if part.target_modules} if text_encoders else {}
        return {self.denoiser.name: target_modules, **texts}
