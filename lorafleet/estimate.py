"""What would make a training take less memory: the same spec with one thing changed. Pure; what each takes is the server's to say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorafleet.catalog import METHODS, PRECISIONS
from lorafleet.spec import Spec

SMALLER_PRECISIONS = ("bf16", "int8", "nf4")  # each takes less than the one before
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
    return [*_micro_batch(spec), *_precisions(spec), *_rank(spec)]


def _micro_batch(spec: Spec) -> Iterator[Variant]:
    training = spec.training
    if training.micro_batch_size > 1:
        passes = training.gradient_accumulation_steps * training.micro_batch_size
        changes = {"training.micro_batch_size": 1, "training.gradient_accumulation_steps": passes}
        yield Variant(changes, "the same batch in more passes: slower")


def _precisions(spec: Spec) -> Iterator[Variant]:
    own = spec.training.precision
    smaller = SMALLER_PRECISIONS[SMALLER_PRECISIONS.index(own) + 1 :] if own in SMALLER_PRECISIONS else SMALLER_PRECISIONS
    for name in smaller:
        is_quantised = PRECISIONS.get(name).quantised_bytes is not None
        if is_quantised and (spec.cluster.zero_stage == 3 or METHODS.get(spec.adapter.method).reads_weights):
            continue
        yield Variant({"training.precision": name}, "the base is less exact, and slower" if is_quantised else "the base is less exact")


def _rank(spec: Spec) -> Iterator[Variant]:
    if spec.adapter.rank >= 2 * LEAST_RANK:
        yield Variant({"adapter.rank": spec.adapter.rank // 2}, "the adapter learns less")
