"""What would make a training take less memory: the same spec with one thing changed. Pure; what each takes is the server's to say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from lorafleet.catalog import PRECISIONS, Precision
from lorafleet.errors import InvalidSpec
from lorafleet.spec import Spec, parse

LAYER = (1024, 1024)  # of a block, by which precisions are compared
LEAST_RANK = 4


@dataclass(frozen=True)
class Variant:
    """A spec with some fields changed. `costs`: what is paid for it, for people."""

    changes: Mapping[str, Any]  # by path: training.precision
    costs: str

    @property
    def title(self) -> str:
        return ", ".join(f"{path}={value}" for path, value in self.changes.items())

    def of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The document of a spec with the changes in it."""
        changed = dict(fields)
        for path, value in self.changes.items():
            section, _, name = path.partition(".")
            changed[section] = {**changed.get(section, {}), name: value}
        return changed


def variants(spec: Spec) -> list[Variant]:
    """All that the spec can do without being another training, or nearly so; those that its rules refuse are left out."""
    fields = spec.model_dump()
    return [
        each
        for each in (*_micro_batch(spec), *_recomputation(spec), *_precisions(spec), *_text_precisions(spec), *_rank(spec))
        if _is_good(each.of(fields))
    ]


def _is_good(fields: Mapping[str, Any]) -> bool:
    try:
        parse(fields)
    except InvalidSpec:
        return False
    return True


def _micro_batch(spec: Spec) -> Iterator[Variant]:
    training = spec.training
    if training.micro_batch_size > 1:
        passes = training.gradient_accumulation_steps * training.micro_batch_size
        changes = {"training.micro_batch_size": 1, "training.gradient_accumulation_steps": passes}
        yield Variant(changes, "the same batch in more passes: slower")


def _recomputation(spec: Spec) -> Iterator[Variant]:
    if not spec.training.gradient_checkpointing:
        yield Variant({"training.gradient_checkpointing": True}, "the same numbers, a third slower")


def _precisions(spec: Spec) -> Iterator[Variant]:
    """Those at which a layer takes less than it does now, from the most exact on."""
    least = _layer_bytes(PRECISIONS.get(spec.training.precision))
    for facts in sorted(PRECISIONS.all(), key=_layer_bytes, reverse=True):
        if _layer_bytes(facts) < least:  # of two alike the first: bf16, which never overflows
            least = _layer_bytes(facts)
            is_quantised = facts.quantised_bytes is not None
            costs = "the base is less exact, and slower" if is_quantised else "the base is less exact"
            yield Variant({"training.precision": facts.name}, costs)


def _text_precisions(spec: Spec) -> Iterator[Variant]:
    """Of text encoders as large as the denoiser: what is asked of precisions."""
    for facts in PRECISIONS.all():
        if facts.quantised_bytes is not None and _layer_bytes(facts) < _layer_bytes(spec.text_precision):
            yield Variant({"training.text_precision": facts.name}, "captions are read less exactly")


def _layer_bytes(facts: Precision) -> int:
    return facts.held_bytes(prod(LAYER), {"blocks.0.layer": LAYER})


def _rank(spec: Spec) -> Iterator[Variant]:
    if spec.adapter.rank >= 2 * LEAST_RANK:
        yield Variant({"adapter.rank": spec.adapter.rank // 2}, "the adapter learns less")
