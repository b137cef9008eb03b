"""A request on its base, checked as a whole: what is wrong with it, all at once, or what is to be drawn."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lorafleet import generation_schedulers
from lorafleet.errors import InvalidInput, RunFailed
from lorafleet.generation_spec import GenerationSpec
from trainer.adapters.files import reading
from trainer.frozen_base import FrozenBase
from trainer.generation import files
from trainer.generation.files import AdapterOfUri
from trainer.generation.grid import Cell, Drawn, cells, uris
from trainer.generation.kept import KeptAdapters
from trainer.generation.sampler import How, Sampler
from trainer.prepare import base_model, node_cache
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder


@dataclass(frozen=True, kw_only=True)
class Request:
    """A good one."""

    spec: GenerationSpec
    base: BaseModel
    adapters: Mapping[str, AdapterOfUri]  # by URI
    drawn: Drawn
    cells: tuple[Cell, ...]

    def notes(self) -> Iterator[str]:
        """What whoever looks at the pictures should know."""
        for each in self.adapters.values():
            if each.adds_nothing:
                yield f"{each.uri} changes nothing: all its updates are zero"
        for number, (adapter_set, weight) in enumerate(self.spec.variants, start=1):
            if adapter_set and all(use.weight * weight == 0 for use in adapter_set):
                yield f"set {number} of the grid has weights of zero alone: LoRA of weight 0 draws what the base draws"


def inspect(spec: GenerationSpec) -> BaseModel:
    """The request's base. Raises InvalidInput that also names the adapter files that cannot be read at all, RunFailed."""
    try:
        return base_model.inspect(spec.base_model, Folder(node_cache.bases().parent.as_uri()))
    except RunFailed as why:
        if why.retryable:
            raise
        raise InvalidInput("\n".join([str(why), *_unreadable(spec)])) from None


def _unreadable(spec: GenerationSpec) -> Iterator[str]:
    for uri in uris(spec.adapters):
        try:
            reading.read(files.sources_of(uri))
        except (InvalidInput, RunFailed, OSError) as why:
            yield f"{uri}: {why}"


def sampler(base: BaseModel, *, precision: str = "fp32", device: str | None = None) -> Sampler:
    """With the base loaded, on the GPU where there is one."""
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Sampler(FrozenBase(base, precision, torch.device(where)))


def checked(
    spec: GenerationSpec, base: BaseModel, sampler: Sampler, out: str, *, on_any_base: bool = False, kept: KeptAdapters | None = None
) -> Request:
    """`kept`: of the Drawing that follows, which then need not read the files again. Raises InvalidInput with all that is wrong."""
    adapters, wrong = files.look(uris(spec.adapters), base, sampler.layers, on_any_base=on_any_base, kept=kept)
    how = _how(spec, base)
    wrong = [*wrong, *_size_problems(how, base), *_other_problems(spec, sampler), *_place_problems(out)]
    if wrong:
        raise InvalidInput("\n".join(wrong))
    drawn = Drawn(
        base=base.uri.rpartition("/")[2],
        base_digest=base.digest,
        family=base.family,
        scheduler=how.scheduler.scheduler if how.scheduler else sampler.own_scheduler,
        how=how,
    )
    return Request(spec=spec, base=base, adapters=adapters, drawn=drawn, cells=tuple(cells(spec, adapters)))


def _how(spec: GenerationSpec, base: BaseModel) -> How:
    usual = base.resolution or 512
    known = generation_schedulers.of(_objective(base))
    return How(
        width=spec.width or usual,
        height=spec.height or usual,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        scheduler=known.get(spec.scheduler or ""),
    )


def _objective(base: BaseModel) -> str:
    from trainer.families import family

    return family(base.family).facts.objective


def _size_problems(how: How, base: BaseModel) -> Iterator[str]:
    for name, side in (("width", how.width), ("height", how.height)):
        if side % base.resolution_step:
            below = side // base.resolution_step * base.resolution_step
            close = [each for each in (below, below + base.resolution_step) if each]
            yield f"{name}: {side} is no multiple of {base.resolution_step}, as this base needs; close: {' or '.join(map(str, close))}"
        if base.facts.max_side is not None and side > base.facts.max_side:
            yield f"{name}: {side} is more than the {base.facts.max_side} pixels that this base takes along a side"


def _other_problems(spec: GenerationSpec, sampler: Sampler) -> Iterator[str]:
    facts = sampler.family
    known = generation_schedulers.of(facts.objective)
    if spec.scheduler is not None and spec.scheduler not in known:
        there = ", ".join(known)
        yield f"scheduler: {spec.scheduler} does not draw with {facts.name}; there is {there}, or leave it out for the base's own"
    if any(spec.negative_prompts) and not sampler.takes_negative_prompts:
        yield f"negative_prompts: {facts.name} has guidance built in, and is led away from nothing; leave them out"


def _place_problems(out: str) -> Iterator[str]:
    """What is known before anything is written; a store says the rest when it is first asked."""
    if not out.startswith("file://"):
        return
    path = Path(out.removeprefix("file://"))
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        yield f"out: {there} is a file; name a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"out: {there} cannot be written to; name another folder, or change its permissions"
