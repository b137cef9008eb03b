"""Declares the training spec: what a user asks for, its defaults and every rule, in one place.

The proto `lorafleet.v1.TrainingSpec` carries the same fields by the same names. Rules that need the
store or the model (does the bucket exist, does a target module match) are checked where those are.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from math import ceil
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from lorafleet import spec_compile_rules, spec_merge, spec_override_rules, spec_token_rules
from lorafleet.catalog import FAMILIES, METHODS, OPTIMIZERS, PRECISIONS, Family, Precision
from lorafleet.errors import InvalidSpec, Violation
from lorafleet.spec_adapter import AdapterSpec
from lorafleet.spec_dataset import DatasetSpec
from lorafleet.spec_part import SpecPart
from lorafleet.spec_rules import RULES, Location
from lorafleet.spec_sections import (
    DEFAULT_OUTPUT_PRECISION,
    DEFAULT_PROFILE,
    FORMATS,
    BaseModelSpec,
    CheckpointingSpec,
    ClusterSpec,
    ObjectiveSpec,
    OptimizationSpec,
    OutputSpec,
    SchedulingSpec,
    ValidationSpec,
)
from lorafleet.spec_tokens import TOKEN_RATE, TRAIN_FRACTION, TextualInversionSpec
from lorafleet.spec_violations import is_consequence, path_of, violation
from lorafleet.spec_words import LabelKey, Text

__all__ = [
    "DEFAULT_OUTPUT_PRECISION",
    "DEFAULT_PROFILE",
    "FORMATS",
    "AdapterSpec",
    "BaseModelSpec",
    "CheckpointingSpec",
    "ClusterSpec",
    "DatasetSpec",
    "ObjectiveSpec",
    "OptimizationSpec",
    "OutputSpec",
    "SchedulingSpec",
    "Spec",
    "TextualInversionSpec",
    "ValidationSpec",
    "json_schema",
    "parse",
]

MAX_LABELS = 64
MAX_VIOLATIONS = 1000  # that are told one by one; a spec that is good has fewer fields


class Spec(SpecPart):
    """What a user asks for: one style, one LoRA. Immutable."""

    base_model: BaseModelSpec
    dataset: DatasetSpec
    adapter: AdapterSpec = AdapterSpec()
    training: OptimizationSpec = OptimizationSpec()
    # Left out where it is the default: a trainer that does not know it refuses the spec.
    objective: Annotated[ObjectiveSpec, Field(exclude_if=lambda objective: objective == ObjectiveSpec())] = ObjectiveSpec()
    textual_inversion: Annotated[TextualInversionSpec, Field(exclude_if=lambda tokens: tokens == TextualInversionSpec())] = (
        TextualInversionSpec()
    )
    cluster: ClusterSpec = ClusterSpec()
    validation: ValidationSpec = ValidationSpec()
    checkpointing: CheckpointingSpec = CheckpointingSpec()
    output: OutputSpec = OutputSpec()
    scheduling: SchedulingSpec = SchedulingSpec()
    labels: Annotated[
        dict[LabelKey, Annotated[Text, Field(max_length=255)]],
        Field(max_length=MAX_LABELS, description="Labels of your own, for filters."),
    ] = {}  # noqa: RUF012 - pydantic copies it for each spec

    @model_validator(mode="after")
    def _targets_what_its_family_does(self) -> Self:
        if self.base_model.family is not None and not self.adapter.target_modules:
            targets = self.family.preset(self.adapter.targets)
            object.__setattr__(self, "adapter", self.adapter.model_copy(update={"target_modules": targets}))  # it is frozen
        return self

    @model_validator(mode="after")
    def _writes_what_holds_its_method(self) -> Self:
        method, family = METHODS.get(self.adapter.method), self.base_model.family
        if not self.output.formats and not self.textual_inversion.alone and (family is not None or not method.loaded_by_diffusers):
            formats = tuple(each for each in FORMATS if each != "diffusers" or method.diffusers_loads(family))
            object.__setattr__(self, "output", self.output.model_copy(update={"formats": formats}))
        return self

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        if broken := list(_broken_rules(self.model_dump(), broken=())):
            raise ValidationError.from_exception_data("Spec", [_line_error(*rule) for rule in broken])
        return self

    @property
    def family(self) -> Family:
        """The facts of its family. Raises LookupError for a spec that leaves it to its base: see `on`."""
        return FAMILIES.get(self.base_model.family or "")

    def on(self, family: str) -> "Spec":
        """This spec with the family that its base was found to be of, and what is that family's default. Raises InvalidSpec."""
        return parse({**self.model_dump(), "base_model": {**self.base_model.model_dump(), "family": family}})

    @property
    def global_batch_size(self) -> int:
        """Pictures of the data set per optimizer step over all workers."""
        return self.training.micro_batch_size * self.training.gradient_accumulation_steps * self.cluster.num_workers

    @property
    def gives_average(self) -> bool:
        """Whether what is drawn with, judged and written is the adapter's moving average."""
        return self.training.ema_decay is not None and self.output.weights != "trained"

    @property
    def trains_text(self) -> bool:
        """Whether captions are encoded anew at each step: with adapters on text encoders, or with new tokens."""
        return self.adapter.text_encoder or bool(self.textual_inversion.tokens)

    @property
    def token_rate(self) -> float | None:
        """The peak learning rate of new tokens; None: they have the adapter's, or there are none."""
        if not self.textual_inversion.tokens or OPTIMIZERS.get(self.training.optimizer).has_one_rate:
            return None
        return self.textual_inversion.learning_rate or TOKEN_RATE

    @property
    def token_steps(self) -> int:
        """Steps in which new tokens are trained; from then on they stay as they are."""
        optimizer, asked = OPTIMIZERS.get(self.training.optimizer), self.textual_inversion.train_fraction
        to_the_end = self.textual_inversion.alone or optimizer.has_one_rate or optimizer.averages
        return ceil((asked or (1.0 if to_the_end else TRAIN_FRACTION)) * self.training.max_steps)

    @property
    def text_precision(self) -> Precision:
        """Of text encoders as large as the denoiser."""
        return PRECISIONS.get(self.training.text_precision or PRECISIONS.get(self.training.precision).encodes)

    @property
    def pictures_per_step(self) -> int:
        """With those of the regularisation set, of which there are as many."""
        return self.global_batch_size * (2 if self.dataset.regularization is not None else 1)

    @property
    def why_alone(self) -> str:
        """What keeps it out of packs; empty: nothing."""
        if self.cluster.zero_stage:
            return f"cluster.zero_stage is {self.cluster.zero_stage}"
        if self.cluster.offload != "none":
            return f'cluster.offload is "{self.cluster.offload}"'
        return ""


# Rules over several fields.


def _broken_rules(fields: Mapping[str, Any], broken: Collection[Location]) -> Iterator[tuple[Location, str]]:
    """Where and how `fields` break a rule.

    Asked of plain values because pydantic validates a whole only once its parts are good, and a user wants to hear
    everything at once. A rule over a field that is `broken` by itself has nothing to add.
    """
    for rule in (*RULES, *spec_compile_rules.RULES):
        if any(field[: len(location)] == location for field in rule.fields for location in broken):
            continue
        if complaint := rule.complaint(*(_value_at(fields, *field) for field in rule.fields)):
            yield rule.fields[0], complaint
    if not any(location[:2] == ("adapter", "overrides")[: len(location)] for location in broken):
        yield from spec_override_rules.broken(partial(_value_at, fields), broken)
    if not any(location[:1] == (spec_token_rules.SECTION,)[: len(location)] for location in broken):
        yield from spec_token_rules.broken(fields.get(spec_token_rules.SECTION) or {}, partial(_value_at, fields), broken)
    yield from spec_merge.broken(partial(_value_at, fields), broken)


def _value_at(fields: Mapping[str, Any], section: str, name: str) -> Any:
    part = cast(type[BaseModel], Spec.model_fields[section].annotation)
    given = fields.get(section, {})
    default = part.model_fields[name].default
    return cast(dict[str, Any], given).get(name, default) if isinstance(given, dict) else default


def _line_error(location: Location, complaint: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("rule", "{complaint}", {"complaint": complaint}), loc=location, input=None)


# From plain values.


def parse(fields: Mapping[str, Any]) -> Spec:
    """A spec from plain values. Raises InvalidSpec with every violation, each with its field path."""
    try:
        return Spec.model_validate(fields)
    except ValidationError as error:
        found = error.errors()
    violations = [violation(details, Spec) for details in found[:MAX_VIOLATIONS] if not is_consequence(details, found)]
    if len(found) > MAX_VIOLATIONS:
        violations.append(Violation(field="spec", message=f"and {len(found) - MAX_VIOLATIONS:,} more problems"))
    rules = _broken_rules(fields, broken=[details["loc"] for details in found])
    raise InvalidSpec([*violations, *(Violation(field=path_of(location), message=complaint) for location, complaint in rules)])


def json_schema() -> dict[str, Any]:
    """JSON Schema of spec files, for editors: docs/spec.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
