"""What the configs of a base say about it: sizes, objective, kind; everything that does not fit its family is named at once. Pure.

Which parts a family has, and what their configs may say, are its facts (`lorafleet.catalog`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from lorafleet import objectives
from lorafleet.catalog.family import MODEL_INDEX, Family, Label
from lorafleet.catalog.part import Part, PartKind
from lorafleet.catalog.parts import MAX_TOKENS

Config = Mapping[str, Any]

LIBRARIES = frozenset({"diffusers", "transformers"})
# Parts of a pipeline that training does without; the checker's library is a module of diffusers.
OPTIONAL = {"safety_checker": LIBRARIES | {"stable_diffusion"}, "feature_extractor": LIBRARIES, "image_encoder": LIBRARIES}


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """What training must know of a base."""

    vae_factor: int  # pixels per latent, along a side
    resolution: int | None  # pixels; what the base was trained at, where it says so
    resolution_step: int  # sides must be multiples of this
    max_side: int | None  # pixels, where it takes no longer ones
    max_tokens: int  # of a caption that are kept, by the text encoder that keeps most
    tokens: Mapping[str, int]  # by tokenizer how many it keeps
    scheduler: str  # the class that draws its sample pictures; empty: its family needs none
    prediction_type: str
    zero_terminal_snr: bool
    label: Label
    num_skipped_layers: int = 0  # of the text encoder, at its end
    cautions: tuple[str, ...] = ()  # what whoever trains on it should know: sentences


def index_problems(index: Mapping[str, JsonValue], family: Family) -> Iterator[str]:
    """What model_index.json names that is not this family's. Nothing is imported for a name in a file."""
    parts = {part.name: part for part in family.parts}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list):
            continue  # settings of the pipeline
        if name in parts:
            yield from _part_problems(parts[name], value, family)
        elif (
            not _is_setting(value)
            and value != [None, None]
            and (len(value) != 2 or not _is_one_of(value[0], OPTIONAL.get(name, LIBRARIES)))
        ):
            told = repr(name) if name in OPTIONAL else "a part that is not known"
            yield f"names {told} from a library that {family.name} has not; its parts come from diffusers and transformers"
    for name in parts:
        if not isinstance(index.get(name), list):
            yield f"does not name its {name}"
    gone = absent(index, family)
    for encoder, tokenizer in zip(family.text_encoders, family.tokenizers, strict=False):
        if (encoder.name in gone) != (tokenizer.name in gone):
            yield f"names one of {encoder.name} and {tokenizer.name} without the other; they come together, or neither does"


def _is_setting(value: Sequence[object]) -> bool:
    """Such as the layers of a text encoder that a pipeline reads: numbers, where a part is a library and a class."""
    return bool(value) and all(type(each) in (int, float) for each in value)


def absent(index: Config, family: Family) -> frozenset[str]:
    """The optional parts that a base says it is without."""
    return frozenset(part.name for part in family.parts if part.is_optional and index.get(part.name) == [None, None])


def _is_one_of(word: object, known: frozenset[str]) -> bool:
    return isinstance(word, str) and word in known  # a list in its place has no hash


def _part_problems(part: Part, value: list[Any], family: Family) -> Iterator[str]:
    if value == [None, None]:
        if part.is_optional:
            return
        yield f"has no {part.name}; {family.name} needs a {part.classes[0]} there"
    elif len(value) != 2 or value[0] != part.library or value[1] not in part.classes:
        more = " or the like" if part.kind is PartKind.SCHEDULER else ""
        yield f"has a {part.name} of another kind; {family.name} takes {part.library}'s {part.classes[0]}{more}"


def problems(configs: Mapping[str, Config], family: Family) -> Iterator[tuple[str, str]]:
    """(file, what is wrong in it), all of it. `configs`: by part; a part whose config could not be read is left out."""
    for part in family.parts:
        if part.name in configs:
            yield from ((part.config, problem) for problem in part.problems(configs[part.name], family.name))
    yield from ((family.part(part).config, problem) for part, problem in family.misfits(configs))


def clip_skip_problem(clip_skip: int | None, configs: Mapping[str, Config], family: Family) -> str | None:
    """As the end of a sentence whose subject it is."""
    if clip_skip is None or family.no_clip_skip:
        return family.no_clip_skip if clip_skip is not None else None
    encoder = family.text_encoders[0]
    num_layers = {**encoder.defaults, **configs.get(encoder.name, {})}["num_hidden_layers"]
    return f"{clip_skip} is more than the {num_layers} layers that {encoder.name} has" if clip_skip > num_layers else None


def facts(configs: Mapping[str, Config], index: Config, family: Family, clip_skip: int | None = None) -> BaseFacts:
    """Of configs without problems."""
    sizes = family.sizes(configs[family.denoiser.name], configs[family.autoencoder.name])
    tokens = family.max_tokens(configs)
    schedulers = family.of_kind(PartKind.SCHEDULER)
    scheduler: Config = configs[schedulers[0].name] if schedulers else {}
    return BaseFacts(
        vae_factor=sizes.pixels_per_latent,
        resolution=sizes.resolution,
        resolution_step=sizes.step,
        max_side=sizes.max_side,
        max_tokens=max(tokens.values(), default=MAX_TOKENS),
        tokens=tokens,
        scheduler=index[schedulers[0].name][1] if schedulers else "",
        prediction_type=scheduler.get(objectives.FIELD, objectives.DEFAULT)
        if family.objective == objectives.DIFFUSION
        else family.objective,
        zero_terminal_snr=scheduler.get("rescale_betas_zero_snr") is True,
        label=family.label_of(configs),
        num_skipped_layers=(clip_skip or 1) - 1,
        cautions=tuple(family.cautions({**configs, MODEL_INDEX: index})),
    )
