"""The rules of a spec over what some of its layers have of their own: each is told at the override that breaks it. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lorafleet.catalog import FAMILIES, OPTIMIZERS
from lorafleet.spec_overrides import RATE_FIELDS, OverrideSpec, doubles
from lorafleet.spec_rules import RULES, Location, method_begins_so, method_has_alpha, method_has_the_rank

FIELD = ("adapter", "overrides")
Overrides = Sequence[OverrideSpec]
Told = Iterator[tuple[int, str, str]]  # (number of the override, name of its field, what is wrong)


class _Rule(NamedTuple):
    """A rule over overrides and other fields."""

    fields: tuple[tuple[str, str], ...]
    complaints: Callable[..., Told]


def broken(value_at: Callable[[str, str], Any], wrong: Collection[Location]) -> Iterator[tuple[Location, str]]:
    """Where and how the overrides break a rule; they are good by themselves. `wrong`: fields that are not."""
    overrides = [OverrideSpec.model_validate(each) for each in value_at(*FIELD)]
    if not overrides:
        return
    for rule in _RULES:
        if not any(location[:2] == field for field in rule.fields for location in wrong):
            for number, name, complaint in rule.complaints(overrides, *(value_at(*field) for field in rule.fields)):
                yield (*FIELD, number, name), complaint
    yield from _of_schedules(overrides, value_at, wrong)


def _are_of_different_layers(overrides: Overrides) -> Told:
    for number, name in doubles(overrides):
        yield number, name, f'"{getattr(overrides[number], name)}" has an override already; make one of both'


def _parts_train(overrides: Overrides, family: str | None, text_encoder: bool) -> Told:
    for number, each in enumerate(overrides):
        if each.part is not None and (why := _why_untrained(each.part, family, text_encoder)):
            yield number, "part", f'"{each.part}" {why}'


def _why_untrained(part: str, family: str | None, text_encoder: bool) -> str | None:
    families = [FAMILIES.get(family)] if family else FAMILIES.all()
    denoisers = {each.denoiser.name for each in families}
    texts = {text.name for each in families for text in each.text_encoders if text.target_modules}
    if part in denoisers:
        return None
    if part not in texts:
        return f"has no adapter; of {family or 'any family'} {', '.join(sorted(denoisers | texts))} may"
    return None if text_encoder else "has no adapter without adapter.text_encoder: set that, too"


def _rates_may_differ(overrides: Overrides, optimizer: str, zero_stage: int) -> Told:
    for number, each in enumerate(overrides):
        if not each.has_rate:
            continue
        name = next(name for name in RATE_FIELDS if getattr(each, name) is not None)
        if OPTIMIZERS.get(optimizer).has_one_rate:
            yield number, name, f'"{optimizer}" finds one rate for the whole adapter: leave it out'
        if zero_stage:
            yield number, name, f"is of whole tensors, which cluster.zero_stage {zero_stage} cuts; use zero_stage 0"


def _methods_take_them(overrides: Overrides, method: str, initialization: str, rank: int) -> Told:
    """What holds for the adapter holds for each layer. What is wrong with the initialization itself is told there."""
    begins = method_begins_so(initialization, method, rank) is None
    for number, each in enumerate(overrides):
        if each.rank is not None:
            wrong = method_has_the_rank(each.rank, method) or (method_begins_so(initialization, method, each.rank) if begins else None)
            if wrong:
                yield number, "rank", wrong.replace("adapter.rank, ", "the rank here, ")
        if wrong := method_has_alpha(each.alpha, method):
            yield number, "alpha", wrong


def _ranks_are_no_less_than_the_least(overrides: Overrides, min_rank: int | None) -> Told:
    for number, each in enumerate(overrides):
        if min_rank is not None and each.rank is not None and each.rank < min_rank:
            yield number, "rank", f"{each.rank} is less than adapter.min_rank, {min_rank}"


def _resizes_to_one_rank(overrides: Overrides, start: Mapping[str, Any] | None) -> Told:
    for number, each in enumerate(overrides):
        if start is not None and start.get("resize") and each.rank is not None:
            yield number, "rank", "adapter.start.resize makes all layers of one rank: leave one of both out"


_RULES = (
    _Rule((), _are_of_different_layers),
    _Rule((("base_model", "family"), ("adapter", "text_encoder")), _parts_train),
    _Rule((("training", "optimizer"), ("cluster", "zero_stage")), _rates_may_differ),
    _Rule((("adapter", "method"), ("adapter", "initialization"), ("adapter", "rank")), _methods_take_them),
    _Rule((("adapter", "min_rank"),), _ranks_are_no_less_than_the_least),
    _Rule((("adapter", "start"),), _resizes_to_one_rank),
)


def _of_schedules(overrides: Overrides, value_at: Callable[[str, str], Any], wrong: Collection[Location]) -> Iterator[tuple[Location, str]]:
    """The rules on a schedule hold for each one's own, which is the spec's but for what it changes."""
    for number, each in enumerate(overrides):
        own = {name: getattr(each, name) for name in RATE_FIELDS if getattr(each, name) is not None}
        for rule in RULES:
            if own.keys().isdisjoint(name for _, name in rule.fields) or not all(_is_rates(field) for field in rule.fields):
                continue
            if any(location[:2] == field for field in rule.fields for location in wrong):
                continue
            if complaint := rule.complaint(*(_own(each, own, field, value_at) for field in rule.fields)):
                told_at = next(name for _, name in rule.fields if name in own)
                yield (*FIELD, number, told_at), complaint


def _is_rates(field: tuple[str, str]) -> bool:
    return field[0] == "training" and field[1] in {*RATE_FIELDS, "max_steps", "optimizer"}


def _own(each: OverrideSpec, own: dict[str, Any], field: tuple[str, str], value_at: Callable[[str, str], Any]) -> Any:
    name = field[1]
    if name in own:
        return own[name]
    return None if "lr_scheduler" in own and name in {"lr_cycles", "lr_power", "lr_end"} else value_at(*field)
