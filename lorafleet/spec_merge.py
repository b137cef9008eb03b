"""The section of a training spec that says what is made of the adapter in the end: one of several, or a base that has it."""

from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from lorafleet import merge_rules
from lorafleet.spec_part import SpecPart

FIELD = ("output", "merge")
MOST_ADAPTERS = 16  # that are combined with the one that is trained

Weight = Annotated[float, Field(ge=-10, le=10)]
Location = tuple[int | str, ...]


class MergedWithSpec(SpecPart):
    """An adapter that is combined with the one that is trained."""

    uri: Annotated[
        str, Field(description="Its .safetensors file, PEFT's folder, or a job's artifact; s3:// or file://. Of the same family.")
    ]
    weight: Annotated[Weight, Field(description="What its update is multiplied by.")] = 1.0


class MergeSpec(SpecPart):
    """What a job makes of its adapter as its last step, beside the adapter itself: one with others, or a base that has it."""

    adapters: Annotated[
        tuple[MergedWithSpec, ...],
        Field(
            max_length=MOST_ADAPTERS,
            strict=False,
            description="Adapters to combine with; the result is in the artifact's folder merged, in the same formats.",
        ),
    ] = ()
    fuse: Annotated[
        bool, Field(description="In their place: fuse the adapter into its base; the new base is the artifact's folder base.")
    ] = False
    weight: Annotated[Weight, Field(description="What the trained adapter's own update is multiplied by.")] = 1.0
    kind: Annotated[
        Literal["cat", "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd"],
        Field(description="cat: the exact sum; svd: the nearest of a rank; others leave numbers out first, by PEFT's names."),
    ] = "cat"
    rank: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Of the result, but of cat's, which is the sum of the ranks; unset: the largest of the adapters'."
    )
    energy: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="In place of rank: the share of the squares of singular values to keep."
    )
    density: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Share of an update's numbers that ties, dare and magnitude_prune keep; unset: 0.5."
    )
    majority: Annotated[Literal["total", "frequency"], Field(description="Whose sign wins in ties: by the numbers, or their count.")] = (
        "total"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Of what dare leaves out.")] = 0

    @property
    def uris(self) -> tuple[str, ...]:
        return tuple(each.uri for each in self.adapters)


def broken(value_at: Callable[[str, str], Any], wrong: Collection[Location]) -> Iterator[tuple[Location, str]]:
    """Where and how `output.merge` breaks a rule; its fields are good by themselves. `wrong`: fields that are not."""
    if any(location[:2] == FIELD[: len(location)] for location in wrong) or (given := value_at(*FIELD)) is None:
        return
    for name, why in _problems(MergeSpec.model_validate(given)):
        yield (*FIELD, name), why
    if value_at("textual_inversion", "alone") is True:
        yield FIELD, "is of an adapter, and textual_inversion.alone trains none: leave one of both out"


def _problems(merge: MergeSpec) -> Iterator[tuple[str, str]]:
    if not merge.adapters and not merge.fuse:
        yield "adapters", "names none: say what to combine with, or set output.merge.fuse"
    if merge.adapters and merge.fuse:
        yield "fuse", "stands beside output.merge.adapters: a base holds what the job trained; choose one"
    if not merge.fuse:
        yield from merge_rules.broken(merge.kind, merge.rank, merge.energy, merge.density)
    elif has := [name for name in ("kind", "rank", "energy", "density") if getattr(merge, name) != MergeSpec.model_fields[name].default]:
        yield has[0], "weights of a base hold the sum itself: leave it out"
    uris = merge.uris
    for number, uri in enumerate(uris):
        if uri in uris[:number]:
            yield "adapters", f"has {uri} twice: give it once, with the sum of the weights"
    if merge.weight == 0 and all(each.weight == 0 for each in merge.adapters):
        yield "weight", "nothing is left: all weights are zero"
