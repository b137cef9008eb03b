"""The rules of a spec over new tokens: each is told at the token, or at the field, that breaks it. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from lorafleet.catalog import FAMILIES, OPTIMIZERS
from lorafleet.spec_rules import Location
from lorafleet.spec_tokens import MAX_VECTORS, TOKEN_RATE, TextualInversionSpec, file_stem

SECTION = "textual_inversion"
Told = Iterator[tuple[Location, str]]  # (place in the section, what is wrong)


class _Rule(NamedTuple):
    """A rule over the section and other fields."""

    fields: tuple[tuple[str, str], ...]
    complaints: Callable[..., Told]


def broken(given: Mapping[str, Any], value_at: Callable[[str, str], Any], wrong: Collection[Location]) -> Iterator[tuple[Location, str]]:
    """Where and how the section, which is good by itself, breaks a rule. `wrong`: fields of others that are not good."""
    asked = TextualInversionSpec.model_validate(given)
    for rule in _RULES:
        if not any(location[:2] == field[: len(location)] for field in rule.fields for location in wrong):
            for place, complaint in rule.complaints(asked, *(value_at(*field) for field in rule.fields)):
                yield (SECTION, *place), complaint


def _has_tokens(asked: TextualInversionSpec) -> Told:
    names = [name for name in ("learning_rate", "train_fraction", "keep_deviation", "alone") if getattr(asked, name)]
    if names and not asked.tokens:
        yield (names[0],), "is of new tokens, and textual_inversion.tokens has none: name some, or leave it out"


def _tokens_are_apart(asked: TextualInversionSpec) -> Told:
    """Readers find the longest name in a text, and a token's further vectors are `<s1>_1`, `<s1>_2`…"""
    for number, each in enumerate(asked.tokens):
        for other in asked.tokens[:number]:
            if each.token == other.token:
                yield ("tokens", number, "token"), f'"{each.token}" is there already'
            elif each.token.startswith(other.token) or other.token.startswith(each.token):
                yield ("tokens", number, "token"), f'one of "{other.token}" and "{each.token}" begins with the other: choose another'
            elif file_stem(each.token) == file_stem(other.token):
                what = f'"{other.token}" and "{each.token}" would both be the file {file_stem(each.token)}.safetensors: choose another'
                yield ("tokens", number, "token"), what
            else:
                continue
            break


def _vectors_fit(asked: TextualInversionSpec) -> Told:
    if asked.num_vectors > MAX_VECTORS:
        yield ("tokens",), f"{asked.num_vectors} vectors in all do not fit into the {MAX_VECTORS} tokens that CLIP takes: use fewer"


def _family_reads_tokens(asked: TextualInversionSpec, family: str | None) -> Told:
    if asked.tokens and family is not None and (why := FAMILIES.get(family).no_new_tokens):
        yield ("tokens",), why


def _rows_are_whole(asked: TextualInversionSpec, zero_stage: int) -> Told:
    if asked.tokens and zero_stage:
        yield ("tokens",), f"have a rate of their own, and cluster.zero_stage {zero_stage} cuts tensors; use zero_stage 0"


def _optimizer_has_rates(asked: TextualInversionSpec, optimizer: str) -> Told:
    facts = OPTIMIZERS.get(optimizer)
    if facts.has_one_rate and asked.learning_rate is not None:
        yield ("learning_rate",), f'"{optimizer}" finds one rate for all tensors: leave it out'
    if (facts.has_one_rate or facts.averages) and asked.train_fraction not in (None, 1.0):
        yield ("train_fraction",), f'"{optimizer}" trains all tensors to the end: leave it out'
    if facts.averages and asked.keep_deviation:
        yield ("keep_deviation",), f'"{optimizer}" averages what it trains, and nothing else may change that: leave it out'


def _rate_falls(asked: TextualInversionSpec, scheduler: str, end: float | None) -> Told:
    rate = asked.learning_rate or TOKEN_RATE
    if asked.tokens and scheduler == "polynomial" and end is not None and end >= rate:
        yield ("learning_rate",), f"{rate:g} is not above training.lr_end, {end:g}, to which it is to fall"


_ADAPTERS = (  # fields of an adapter, and what they are where a spec says nothing
    (("adapter", "text_encoder"), False),
    (("adapter", "start"), None),
    (("adapter", "overrides"), ()),
    (("adapter", "targets"), None),
    (("adapter", "dropout"), 0.0),
    (("training", "lora_plus_ratio"), None),
    (("output", "formats"), ()),
    (("output", "plain_lora_rank"), None),
)


def _alone_is_without_an_adapter(asked: TextualInversionSpec, *values: Any) -> Told:
    if not asked.alone:
        return
    for (field, usual), value in zip(_ADAPTERS, values, strict=True):
        if value != usual and not (usual == () and not value):
            yield ("alone",), f"trains no adapter, of which {'.'.join(field)} is: leave one of both out"
    if asked.train_fraction not in (None, 1.0):
        yield ("train_fraction",), "would leave the last steps nothing to train, for textual_inversion.alone is set: leave it out"


_RULES = (
    _Rule((), _has_tokens),
    _Rule((), _tokens_are_apart),
    _Rule((), _vectors_fit),
    _Rule((("base_model", "family"),), _family_reads_tokens),
    _Rule((("cluster", "zero_stage"),), _rows_are_whole),
    _Rule((("training", "optimizer"),), _optimizer_has_rates),
    _Rule((("training", "lr_scheduler"), ("training", "lr_end")), _rate_falls),
    _Rule(tuple(field for field, _ in _ADAPTERS), _alone_is_without_an_adapter),
)
