"""Declares what pictures are to be drawn: a base, sets of adapters, prompts, weights and seeds, each with each. Pure.

A request is a grid of (adapter set x weight x prompt x seed); one picture is the smallest. It is read from files and options today, and
may travel over the wire tomorrow, so its fields are plain.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lorafleet import generation_schedulers
from lorafleet.errors import InvalidInput
from lorafleet.spec_part import SpecPart
from lorafleet.spec_sections import MAX_PROMPT, BaseModelSpec
from lorafleet.spec_violations import is_consequence, violation
from lorafleet.spec_words import check_text

MAX_PICTURES = 10_000
MAX_SIDE = 8192  # pixels
MAX_TOGETHER = 16  # adapters of one picture

Prompt = Annotated[str, Field(max_length=MAX_PROMPT), AfterValidator(check_text)]
Weight = Annotated[float, Field(ge=-10, le=10)]


class AdapterUse(SpecPart):
    """An adapter and how strong it is, as diffusers' `set_adapters` takes it: 1 is as it was trained."""

    uri: Annotated[str, Field(description="An adapter file, PEFT's folder, or a job's artifact: s3://… or file:///….")]
    weight: Annotated[Weight, Field(description="What its update is multiplied by.")] = 1.0


AdapterSet = Annotated[tuple[AdapterUse, ...], Field(max_length=MAX_TOGETHER, strict=False)]


class GenerationSpec(SpecPart):
    """The pictures of a grid, and how each is drawn. Immutable."""

    base_model: BaseModelSpec
    adapters: Annotated[
        tuple[AdapterSet, ...],
        Field(min_length=1, strict=False, description="Adapters that draw together, a list for each set; an empty one is the base alone."),
    ] = ((),)
    weights: Annotated[
        tuple[Weight, ...],
        Field(min_length=1, strict=False, description="Each set is drawn with each of these, which multiplies its adapters' own weights."),
    ] = (1.0,)
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1, strict=False)]
    negative_prompts: Annotated[
        tuple[Prompt, ...], Field(strict=False, description="One for all prompts, or one for each; none: guidance away from no text.")
    ] = ()
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**32)], ...],
        Field(min_length=1, strict=False, description="A picture's noise follows from its seed alone."),
    ] = (0,)
    width: Annotated[int, Field(ge=8, le=MAX_SIDE)] | None = Field(default=None, description="Pixels; unset: as the base was trained.")
    height: Annotated[int, Field(ge=8, le=MAX_SIDE)] | None = Field(default=None, description="Pixels; unset: as the base was trained.")
    num_inference_steps: Annotated[int, Field(ge=1, le=1000, description="Denoising steps per picture.")] = 25
    guidance_scale: Annotated[float, Field(ge=0, le=50, description="Scale of guidance, as the base's pipeline takes it.")] = 5.0
    scheduler: str | None = Field(default=None, description="A scheduler's short name, such as euler or dpmpp_2m; unset: the base's own.")

    @field_validator("adapters", "weights", "prompts", "seeds")
    @classmethod
    def _has_each_once(cls, axis: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
        seen = set[Hashable]()  # of thousands
        for each in axis:
            if each in seen:
                raise PydanticCustomError("twice", "{what} is there twice", {"what": _told(each)})
            seen.add(each)
        return axis

    @field_validator("scheduler")
    @classmethod
    def _is_known(cls, scheduler: str | None) -> str | None:
        if scheduler is not None and scheduler not in generation_schedulers.names():
            there = ", ".join(generation_schedulers.names())
            raise PydanticCustomError("scheduler", "there is no {name}; there is {there}", {"name": repr(scheduler[:80]), "there": there})
        return scheduler

    @field_validator("negative_prompts")
    @classmethod
    def _is_one_for_each(cls, negative: tuple[str, ...], info: Any) -> tuple[str, ...]:
        prompts = info.data.get("prompts")
        if prompts is not None and len(negative) not in (0, 1, len(prompts)):
            message = "{negative} for {prompts} prompts: write one for all, or one for each"
            raise PydanticCustomError("negative", message, {"negative": len(negative), "prompts": len(prompts)})
        return negative

    @model_validator(mode="after")
    def _is_not_too_many(self) -> Self:
        if self.num_pictures > MAX_PICTURES:
            told = {"sum": self.arithmetic, "most": f"{MAX_PICTURES:,}"}
            raise PydanticCustomError("grid", "{sum}; at most {most} are drawn at a time", told)
        return self

    @property
    def variants(self) -> Iterator[tuple[AdapterSet, float]]:
        """(set, weight) in the order of the grid; the base alone has no weights to differ by."""
        for each in self.adapters:
            yield from ((each, weight) for weight in (self.weights if each else self.weights[:1]))

    @property
    def num_pictures(self) -> int:
        with_weights = sum(bool(each) for each in self.adapters)
        variants = with_weights * len(self.weights) + len(self.adapters) - with_weights
        return variants * len(self.prompts) * len(self.seeds)

    @property
    def arithmetic(self) -> str:
        """How many pictures it is, and why."""
        sets = sum(bool(each) for each in self.adapters)
        alone = " + the base alone" if sets < len(self.adapters) else ""
        variants = f"({sets} adapter sets x {len(self.weights)} weights{alone})"
        return f"{variants} x {len(self.prompts)} prompts x {len(self.seeds)} seeds = {self.num_pictures:,} pictures"

    def negative_of(self, prompt: int) -> str:
        """Of the prompt of that number."""
        if not self.negative_prompts:
            return ""
        return self.negative_prompts[prompt if len(self.negative_prompts) > 1 else 0]


def parse(fields: Mapping[str, Any]) -> GenerationSpec:
    """A request from plain values. Raises InvalidInput with every violation, each with its field path."""
    try:
        return GenerationSpec.model_validate(fields)
    except ValidationError as error:
        found = error.errors()
    violations = [violation(details, GenerationSpec) for details in found if not is_consequence(details, found)]
    raise InvalidInput("\n".join(map(str, violations)), violations=violations, reason="INVALID_SPEC")


def _told(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        uses = [each for each in value if isinstance(each, AdapterUse)]  # pyright: ignore[reportUnknownVariableType]
        return " with ".join(f"{each.uri} at {each.weight:g}" for each in uses) or "the base alone"
    return repr(value)[:100]
