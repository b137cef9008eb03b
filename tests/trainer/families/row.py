"""What the tests must know of a family: how to write a tiny base of it, and how to compute with it independently."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.trainer.families.real import Real
from tests.trainer.families.reference import FlowReference


@dataclass(frozen=True, kw_only=True)
class Row:
    """One family. Each variant is a base that training takes otherwise, such as dev and schnell; the first is the usual one."""

    family: str
    write: Callable[[Path, str], Path]  # (folder, variant)
    variants: tuple[str, ...]
    reference: type[FlowReference]
    pipeline: Any  # diffusers' class
    target_modules: Sequence[str]  # every kind of layer that adapters may sit on
    real: Real | None = None
    architectures: Mapping[str, str] = field(default_factory=dict[str, str])  # of modelspec, by variant
    distilled: Sequence[str] = ()  # the variants that train with a warning
    # By name (file, what is changed in it, what is said of it).
    misfits: Mapping[str, tuple[str, Mapping[str, Any], str]] = field(default_factory=dict[str, tuple[str, Mapping[str, Any], str]])
    step: int = 16  # pixels
    pixels_per_latent: int = 8
    has_text_adapters: bool = False  # where CLIP is beside the large encoder
    guidance_scale: float = 3.5
    drawing: Mapping[str, Any] = field(default_factory=dict[str, Any])  # what its pipeline is called with besides
    prompts: Callable[[Any, str], dict[str, Any]] = lambda _, prompt: {"prompt": prompt}  # how its pipeline is given one
    # diffusers reads kohya's file of the tiny base, perhaps by a converter that is told its sizes; None: it reads no such file.
    load_kohya: Callable[[Any, Path], None] | None = None
    published: Callable[[], dict[str, tuple[str, ...]]] | None = None  # kohya's names of the published model -> our modules, in order
    swapped: Sequence[str] = ()  # our modules whose outputs have their halves the other way round there
    draws_files: bool = True  # whether diffusers is asked to draw with them
    formats: tuple[str, ...] = ("diffusers", "kohya")


def load_file(pipeline: Any, path: Path) -> None:
    """As people do."""
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
