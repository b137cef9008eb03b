"""What some layers of an adapter have of their own: those of a part, or those in whose path a pattern occurs. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from lorafleet.spec_part import ScheduleName, SpecPart
from lorafleet.spec_words import PartName, Pattern

MAX_OVERRIDES = 32
RATE_FIELDS = ("learning_rate", "lr_scheduler", "lr_warmup_steps", "lr_cycles", "lr_power", "lr_end")
_OF_A_SCHEDULE = ("lr_cycles", "lr_power", "lr_end")  # a schedule of its own has none of another's


class OverrideSpec(SpecPart):
    """What a part's layers have of their own, or a pattern's; of a layer that has both the pattern's. What is unset is the adapter's."""

    part: PartName | None = Field(default=None, description="Layers of this part of the base, such as text_encoder or unet.")
    pattern: Pattern | None = Field(
        default=None,
        description="Layers in whose path this occurs between dots, * standing for anything, such as attn2 or mid_block.*attn2. A path "
        "begins with its part: unet.mid_block.attentions.0.…",
    )
    rank: Annotated[int, Field(ge=1, le=512)] | None = Field(default=None, description="Their rank.")
    alpha: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Their alpha; unset: adapter.alpha, and if that is unset too, their rank."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(default=None, description="Dropout on their input.")
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(default=None, description="Their peak learning rate.")
    lr_scheduler: ScheduleName | None = Field(default=None, description="How their rate falls.")
    lr_warmup_steps: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Their steps of warm-up.")
    lr_cycles: Annotated[int, Field(ge=1, le=10_000)] | None = Field(default=None, description="Of their cosine_with_restarts.")
    lr_power: Annotated[float, Field(gt=0, le=10)] | None = Field(default=None, description="Of their polynomial.")
    lr_end: Annotated[float, Field(ge=0, le=10)] | None = Field(default=None, description="Of their polynomial.")

    @model_validator(mode="after")
    def _names_layers_and_changes_something(self) -> Self:
        if (self.part is None) == (self.pattern is None):
            raise PydanticCustomError("override", "needs part or pattern, and not both: they say of which layers it is")
        if not any(value is not None for name, value in self if name not in {"part", "pattern"}):
            raise PydanticCustomError(
                "override", "changes nothing: give rank, alpha, dropout, learning_rate or a schedule, or leave it out"
            )
        return self

    @property
    def has_rate(self) -> bool:
        """Whether its layers have a learning rate or a schedule of their own."""
        return any(getattr(self, name) is not None for name in RATE_FIELDS)

    def claims(self, path: str) -> bool:
        """Whether it is of the layer with this canonical path."""
        if self.part is not None:
            return path.partition(".")[0] == self.part
        return fnmatchcase(f".{path}.", f"*.{self.pattern}.*")


def claiming(overrides: Sequence[OverrideSpec], path: str) -> list[int]:
    """Numbers of those that are of a layer: its part's, then its pattern's."""
    return sorted((number for number, each in enumerate(overrides) if each.claims(path)), key=lambda n: overrides[n].part is None)


def values_at(overrides: Sequence[OverrideSpec], path: str, names: Iterable[str]) -> dict[str, Any]:
    """Those of the fields that a layer has of its own."""
    return _merged([overrides[number] for number in claiming(overrides, path)], names) if overrides else {}


def rate_chains(overrides: Sequence[OverrideSpec]) -> list[tuple[int, ...]]:
    """Which of them can be at work on the rate of a layer: none, one, or a part's and a pattern's."""
    numbers = [number for number, each in enumerate(overrides) if each.has_rate]
    pairs = [(part, other) for part in numbers for other in numbers if overrides[part].part is not None and overrides[other].part is None]
    return [(), *((number,) for number in numbers), *pairs]


def rate_chain(overrides: Sequence[OverrideSpec], path: str) -> tuple[int, ...]:
    """Which of them are at work on the rate of a layer."""
    return tuple(number for number in claiming(overrides, path) if overrides[number].has_rate)


def rate_fields(overrides: Sequence[OverrideSpec], chain: Iterable[int]) -> dict[str, Any]:
    """What these change of `training`."""
    changed: dict[str, Any] = {}
    for number in chain:
        own = _merged([overrides[number]], RATE_FIELDS)
        changed |= (dict.fromkeys(_OF_A_SCHEDULE) if "lr_scheduler" in own else {}) | own
    return changed


def doubles(overrides: Sequence[OverrideSpec]) -> Iterator[tuple[int, str]]:
    """(number, name of the field) of those that are of the same part or pattern as one before them."""
    for number, each in enumerate(overrides):
        name = "part" if each.part is not None else "pattern"
        if any(getattr(before, name) == getattr(each, name) for before in overrides[:number]):
            yield number, name


def _merged(those: Iterable[OverrideSpec], names: Iterable[str]) -> dict[str, Any]:
    """The last that says something of a field is right about it."""
    names = list(names)
    return {name: value for each in those for name in names if (value := getattr(each, name)) is not None}
