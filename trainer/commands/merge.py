"""`lorafleet merge`: adapter files as one, or fused into their base. Works offline; leaves a whole file or folder, or none."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from lorafleet.commands import Format, Output
from lorafleet.errors import InvalidInput
from lorafleet.terminal import say
from trainer.commands.convert import Precision, To

if TYPE_CHECKING:
    from trainer.adapters.merging.combining import Combined, Ingredient
    from trainer.adapters.merging.recipe import Recipe


class Kind(StrEnum):
    """PEFT's names, as merge_rules.KINDS has them."""

    CAT = "cat"
    SVD = "svd"
    TIES = "ties_svd"
    DARE = "dare_linear_svd"
    DARE_TIES = "dare_ties_svd"
    MAGNITUDE = "magnitude_prune_svd"


class Majority(StrEnum):
    TOTAL = "total"
    FREQUENCY = "frequency"


def merge(
    sources: Annotated[
        list[str], typer.Argument(metavar="IN[=WEIGHT]...", help="Adapter files with their weights; unset: 1.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write; of peft, and of --into, a folder.", show_default=False)],
    kind: Annotated[
        Kind, typer.Option("--kind", help="cat: the exact sum; svd: the nearest of a rank; others leave numbers out first.")
    ] = Kind.CAT,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Of the result; unset: the largest of the adapters'.")] = None,
    energy: Annotated[float | None, typer.Option("--energy", help="In place of a rank: share of squared singular values to keep.")] = None,
    density: Annotated[float | None, typer.Option("--density", help="Share of the numbers that pruning keeps; unset: 0.5.")] = None,
    majority: Annotated[Majority, typer.Option("--majority", help="Whose sign wins in TIES.")] = Majority.TOTAL,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what DARE leaves out.")] = 0,
    blocks: Annotated[
        list[str] | None,
        typer.Option(
            "--block", metavar="PATTERN=WEIGHT", help="A further weight of a part, block or module, such as unet.up_blocks.1=0.5."
        ),
    ] = None,
    to: Annotated[To, typer.Option("--to", help="Format to write.")] = To.KOHYA,
    precision: Annotated[Precision, typer.Option("--precision", help="Of the numbers.")] = Precision.FP32,
    base: Annotated[Path | None, typer.Option("--base", help="Folder of the base, in diffusers' layout: needed for DoRA and OFT.")] = None,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="BASE", help="Fuse into this base instead: OUT is a folder like it.")
    ] = None,
    family: Annotated[str | None, typer.Option("--family", help="Model family, where the files do not tell.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT, and combine adapters of different bases of one family.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Combine adapter files: a weighted sum, exact or of a lower rank, TIES, DARE, or fused into the base. One file alone is scaled or
    resized. Says how far the result is from the sum."""
    from trainer.adapters.merging.recipe import Recipe
    from trainer.commands.whole_files import check_target

    majority_sign = cast(Literal["total", "frequency"], str(majority))
    recipe = Recipe(kind=kind, rank=rank, energy=energy, density=density, majority=majority_sign, seed=seed, blocks=_blocks(blocks or []))
    if into is not None and (problem := _not_fused(recipe, to, precision)):
        raise InvalidInput(problem)
    check_target(out, is_folder=to is To.PEFT or into is not None, force=force)
    given = _given(sources, family)
    found = _fused(into, given, recipe, out, force=force) if into is not None else _written(given, recipe, out, to, precision, base, force)
    _tell(found, output)


def _not_fused(recipe: "Recipe", to: To, precision: Precision) -> str:
    """What does not go with a base as the result; nothing: all does."""
    if recipe.kind != Kind.CAT or recipe.rank is not None or recipe.energy is not None:
        return "--into: weights of a base hold the sum itself; leave --kind, --rank and --energy out"
    return (
        "--into: the folder has its base's layout and precision; leave --to and --precision out"
        if (to is not To.KOHYA or precision is not Precision.FP32)
        else ""
    )


def _given(sources: Sequence[str], family: str | None) -> "list[Ingredient]":
    from trainer.adapters.files.reading import read_path
    from trainer.adapters.merging.combining import Ingredient
    from trainer.commands.options import checked_family

    checked = checked_family(family)
    weighted = [_weighted(each) for each in sources]
    return [Ingredient(name, read_path(Path(name), checked), weight) for name, weight in weighted]


def _weighted(source: str) -> tuple[str, float]:
    """A file whose name has an equals sign is meant by itself, where it is there."""
    name, sign, weight = source.rpartition("=")
    if not sign or Path(source).exists():
        return source, 1.0
    return name, _number(source, weight)


def _blocks(given: Sequence[str]) -> tuple[tuple[str, float], ...]:
    found: list[tuple[str, float]] = []
    for each in given:
        pattern, sign, weight = each.rpartition("=")
        if not sign or not pattern:
            raise InvalidInput(f"--block: {each} is no PATTERN=WEIGHT, such as unet.up_blocks.1=0.5")
        found.append((pattern, _number(each, weight)))
    return tuple(found)


def _number(told: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{told}: {text or 'nothing'} is no weight; write a number after the equals sign")
    return number


def _written(
    given: "Sequence[Ingredient]", recipe: "Recipe", out: Path, to: To, precision: Precision, base: Path | None, force: bool
) -> dict[str, Any]:
    from trainer.adapters.files.fused import NotHeld
    from trainer.adapters.files.writing import write
    from trainer.adapters.formats.tensors import DTYPES
    from trainer.adapters.merging.combining import combine
    from trainer.commands.whole_files import put

    combined = combine(given, recipe, _weights(given, base), dtype=DTYPES[precision], on_any_base=force)
    told = _told(given, recipe, combined)
    adapter = replace(combined.adapter, metadata=_metadata(given, told))
    try:
        written = write(adapter, to, precision=precision)
    except NotHeld as why:
        raise InvalidInput(f"the result {why}") from None
    put(out, written.files, force=force)
    for note in written.notes:
        say(f"note: {note}", err=True, colour="yellow")
    ranks = sorted({module.rank for module in adapter.modules})
    return {"file": str(out), "format": str(to), "family": adapter.family, "num_modules": len(adapter.modules), "ranks": ranks, **told}


def _fused(base: Path, given: "Sequence[Ingredient]", recipe: "Recipe", out: Path, *, force: bool) -> dict[str, Any]:
    from trainer.adapters.merging.combining import weighted
    from trainer.adapters.merging.fusing import fuse
    from trainer.commands.whole_files import beside

    if not (base / "model_index.json").is_file():
        raise InvalidInput(f"--into: {base} is no base in diffusers' layout: it has no model_index.json")
    terms = weighted(given, recipe, on_any_base=force)
    with beside(out, force=force) as made:
        fused = fuse(base, terms, made)
    return {
        "folder": str(out),
        "base": str(base),
        "num_modules": fused.num_modules,
        "parents": _parents(given),
        "weight_error": fused.error,
    }


def _weights(given: "Sequence[Ingredient]", base: Path | None) -> "Mapping[str, Any] | None":
    """Of the base, those that an adapter's update is made of."""
    from trainer.adapters.files.base_weights import weights_of
    from trainer.adapters.files.updates import NEED_WEIGHTS

    needed = {module.paths[0] for each in given for module in each.adapter.modules if module.method in NEED_WEIGHTS}
    if needed and base is None:
        raise InvalidInput("--base: what DoRA and OFT add is made of the base's weights; name its folder, in diffusers' layout")
    return weights_of(base, needed) if base is not None and needed else None


# What is told


def _told(given: "Sequence[Ingredient]", recipe: "Recipe", combined: "Combined") -> dict[str, Any]:
    error, where = combined.output_error
    chosen = {key: value for key, value in vars(recipe).items() if value not in (None, (), 0) and key != "majority"}
    return {**chosen, "parents": _parents(given), "weight_error": combined.weight_error, "output_error": error, "output_error_at": where}


def _parents(given: "Sequence[Ingredient]") -> list[dict[str, Any]]:
    return [{"name": Path(each.name).name, "weight": each.weight, "sha256": _sha256(Path(each.name))} for each in given]


def _sha256(path: Path) -> str:
    """Of a folder over its files."""
    digest = hashlib.sha256()
    for each in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        digest.update(each.read_bytes())
    return digest.hexdigest()


def _metadata(given: "Sequence[Ingredient]", told: Mapping[str, Any]) -> dict[str, str]:
    """What all files say alike of their base, their triggers, and what was done."""
    from trainer.adapters.merging.combining import BASES

    said = [each.adapter.metadata for each in given]
    shared = {
        key: said[0][key] for key in (*BASES, "ss_sd_model_name") if key in said[0] and all(each.get(key) == said[0][key] for each in said)
    }
    triggers = dict.fromkeys(each["modelspec.trigger_phrase"] for each in said if each.get("modelspec.trigger_phrase"))
    phrases = {"modelspec.trigger_phrase": ", ".join(triggers)} if triggers else {}
    return {**shared, **phrases, "lorafleet.merge": json.dumps(told, sort_keys=True)}


def _tell(found: Mapping[str, Any], output: Format) -> None:
    from lorafleet.commands.printing import print_plain

    if output is not Format.TABLE:
        print_plain(dict(found), output)
        return
    if "folder" in found:
        say(f"{found['folder']}: {found['num_modules']} layers of {found['base']} changed")
        say(f"rounding to the base's precision took {100 * found['weight_error']:.2g} % of the change")
        return
    ranks = found["ranks"]
    told = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    say(f"{found['file']}: {found['format']}, {found['family']}, {found['num_modules']} modules, {told}")
    say(
        f"from the weighted sum its weights differ by {100 * found['weight_error']:.2g} %, a module's outputs by at most "
        f"{100 * found['output_error']:.2g} % ({found['output_error_at']})"
    )
