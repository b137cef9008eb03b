"""What a job makes of its adapter as its last step (`output.merge`): one with other adapters, or a base that has it.

All of it lies in the artifact's folder, `merged` or `base`, and is named in its manifest: an attempt that is killed in the middle leaves
what no manifest names, and the next one writes the same again.
"""

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorafleet.contract.layout import adapter_file, join
from lorafleet.errors import InvalidInput, RunFailed
from lorafleet.spec_merge import MergedWithSpec, MergeSpec
from trainer import artifact_facts
from trainer.adapters.files import reading
from trainer.adapters.files.base_weights import weights_of
from trainer.adapters.files.contents import AdapterFile
from trainer.adapters.files.fused import NotHeld
from trainer.adapters.files.sources import Source
from trainer.adapters.files.updates import NEED_WEIGHTS
from trainer.adapters.files.writing import write
from trainer.adapters.formats.tensors import DTYPES
from trainer.adapters.layout import Layer
from trainer.adapters.merging.combining import BASES, Ingredient, combine, weighted
from trainer.adapters.merging.fusing import fuse
from trainer.adapters.merging.recipe import Recipe
from trainer.adapters.start import sources as of_uri
from trainer.artifact_addition import Addition
from trainer.checkpoint import Progress
from trainer.generation.adapter import digest_of, misfits
from trainer.prepare import base_copy
from trainer.prepare.style import PreparedStyle
from trainer.scratch import Scratch

MERGED, BASE = "merged", "base"
INDEX = "model_index.json"  # what makes a folder a base


def check(style: PreparedStyle, layers: Mapping[str, Layer]) -> None:
    """Before anything trains: the adapters that it is to be combined with are there, whole, and of its base. `layers`: of that, by
    canonical path. Raises RunFailed."""
    merge = style.spec.output.merge
    for number, each in enumerate(merge.adapters if merge is not None else ()):
        with _naming(number, each):
            file, _ = _read(each, style)
            its = tuple(module for module in file.modules if all(path in layers for path in module.paths))
            if problems := list(misfits(replace(file, modules=its), layers, "the file")):
                raise InvalidInput(problems[0])


@contextmanager
def made(style: PreparedStyle, merge: MergeSpec, own: bytes, name: str, written: bytes, precision: str) -> Generator[Addition]:
    """Within it files may lie on disk. `own`: the adapter as kohya's file in fp32; `name`, `written`: its file in the artifact, and
    `precision` that of its files."""
    trained = Ingredient(name, reading.read([Source(name, own)], style.spec.family.name), merge.weight)
    told = {"trained": {"file": name, "sha256": hashlib.sha256(written).hexdigest(), "weight": merge.weight}}
    if not merge.fuse:
        yield _combined(style, merge, trained, told, precision)
        return
    scratch = Scratch("lorafleet-fused-")
    try:
        yield _fused(style, trained, told, scratch.path / BASE)
    finally:
        scratch.remove()


# With others


def _combined(style: PreparedStyle, merge: MergeSpec, trained: Ingredient, told: Mapping[str, Any], precision: str) -> Addition:
    given, parents = [trained], list[dict[str, Any]]()
    for number, each in enumerate(merge.adapters):
        with _naming(number, each):
            file, digest = _read(each, style)
        given.append(Ingredient(each.uri, file, each.weight))
        parents.append({"uri": each.uri, "digest": digest, "weight": each.weight})
    recipe = _recipe(merge)
    try:
        weights = _base_weights(style, given)
        combined = combine(given, recipe, weights, dtype=DTYPES[precision], on_any_base=True)  # bases were compared when they were read
        shared = {key: said for key, said in trained.adapter.metadata.items() if key.startswith(("lorafleet.base", "modelspec.", "ss_"))}
        files = _written(style, replace(combined.adapter, metadata=shared), precision)
    except (InvalidInput, NotHeld) as why:
        raise RunFailed(f"output.merge: {why}", reason="MERGE_FAILED") from None
    error, where = combined.output_error
    errors = {"weight_error": combined.weight_error, "output_error": error, "output_error_at": where}
    differs = f"weights differ from the weighted sum by {100 * combined.weight_error:.2g} %, outputs by at most {100 * error:.2g} %"
    others = "1 other adapter" if len(merge.adapters) == 1 else f"{len(merge.adapters)} other adapters"
    row = f"| `{MERGED}` | {recipe.kind} with {others}: {differs} ({where}) |"
    return Addition(
        files=files, facts={"parents": parents, "merge": {**_chosen(merge), **told, **errors, "files": sorted(files)}}, rows=[row]
    )


def _base_weights(style: PreparedStyle, given: Sequence[Ingredient]) -> Mapping[str, Any] | None:
    """Those that the update of some is made of; None: of none is."""
    needed = {module.paths[0] for each in given for module in each.adapter.modules if module.method in NEED_WEIGHTS}
    return weights_of(base_copy.materialise(style.base, streams=False), needed) if needed else None


def _written(style: PreparedStyle, adapter: AdapterFile, precision: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for each in style.spec.output.formats:
        place = f"{MERGED}/{adapter_file(each, style.spec.output.name)}"
        for name, data in write(adapter, each, precision=precision).files.items():
            files[join(place, name) if name else place] = data
    return files


def _recipe(merge: MergeSpec) -> Recipe:
    return Recipe(kind=merge.kind, rank=merge.rank, energy=merge.energy, density=merge.density, majority=merge.majority, seed=merge.seed)


def _chosen(merge: MergeSpec) -> dict[str, Any]:
    """What the spec says but whose URIs the parents have."""
    return merge.model_dump(mode="json", exclude={"adapters", "weight"}, exclude_defaults=True) | {"kind": merge.kind}


def _read(asked: MergedWithSpec, style: PreparedStyle) -> tuple[AdapterFile, str]:
    """(the adapter, its digest). Raises InvalidInput, RunFailed."""
    given = of_uri(asked.uri)
    file = reading.read(given, style.spec.family.name)
    ours = artifact_facts.facts(style, Progress(step=0))
    for key in BASES:
        told = file.metadata.get(key)
        if told and key in ours:
            if told != ours[key]:
                raise InvalidInput(f"was trained on another base, {told}, and this job's is {ours[key]} ({key})")
            break
    return file, digest_of(given)


@contextmanager
def _naming(number: int, asked: MergedWithSpec) -> Generator[None]:
    try:
        yield
    except InvalidInput as why:
        raise RunFailed(f"output.merge.adapters[{number}].uri: {asked.uri}: {why}", reason="MERGE_NOT_USABLE") from None


# Into the base


def _fused(style: PreparedStyle, trained: Ingredient, told: Mapping[str, Any], target: Path) -> Addition:
    try:
        fused = fuse(base_copy.materialise(style.base, streams=False), weighted([trained], Recipe()), target)
    except InvalidInput as why:
        raise RunFailed(f"output.merge.fuse: {why}", reason="MERGE_FAILED") from None
    paths = sorted(_plain(target), key=lambda path: (path == target / INDEX, path))  # the index last: half a base is none
    files = {f"{BASE}/{path.relative_to(target).as_posix()}": path for path in paths}
    merge = {"fuse": True, **told, "num_modules": fused.num_modules, "weight_error": fused.error}
    row = f"| `{BASE}` | the base with this adapter in {fused.num_modules} layers; rounding took {100 * fused.error:.2g} % of the change |"
    return Addition(files=files, facts={"merge": merge}, rows=[row])


def _plain(folder: Path) -> Iterator[Path]:
    """Without what a cache keeps beside the files of a base."""
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
