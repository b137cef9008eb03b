"""`lorafleet generate`: pictures of a base with adapters, without a server. What was drawn before an interruption is not drawn again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lorafleet.commands import Format, Output
from lorafleet.commands.options import grouped
from lorafleet.errors import InvalidInput
from lorafleet.terminal import say

if TYPE_CHECKING:
    from lorafleet.generation_spec import GenerationSpec
    from trainer.generation.drawing import Drawing

ALONE = "none"  # as a set of adapters: the base alone
_PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is drawn; each option stands over the same field of --request."""

    base: Annotated[str | None, typer.Option("--base", help="Folder or file of the base: a path or a URI.", show_default=False)] = None
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="FILE[:WEIGHT][+FILE[:WEIGHT]...]",
            help=f"Adapters that draw together; {ALONE} is the base alone. Repeatable: each is a row of the grid.",
        ),
    ] = None
    weights: Annotated[
        list[float] | None, typer.Option("--weight", help="Multiplies the adapters' weights. Repeatable: an axis of the grid.")
    ] = None
    prompts: Annotated[list[str] | None, typer.Option("--prompt", help="Repeatable: an axis of the grid.", show_default=False)] = None
    negative: Annotated[
        list[str] | None, typer.Option("--negative", help="What guidance leads away from: one for all prompts, or one for each.")
    ] = None
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Of the noise. Repeatable: an axis of the grid.")] = None
    size: Annotated[
        str | None, typer.Option("--size", metavar="WIDTHxHEIGHT", help="Pixels; unset: as the base was trained.", show_default=False)
    ] = None
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps per picture; unset: 25.", show_default=False)] = None
    guidance: Annotated[float | None, typer.Option("--guidance", help="Scale of guidance; unset: 5.", show_default=False)] = None
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Such as euler or dpmpp_2m; unset: the base's own.", show_default=False)
    ] = None
    family: Annotated[str | None, typer.Option("--family", help="Model family, where the base does not tell.", show_default=False)] = None


@grouped
def generate(
    asked: Asked,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Where pictures go: a folder, or s3://…", show_default=False)],
    request: Annotated[
        Path | None, typer.Option("--request", metavar="FILE", help="YAML or JSON with the fields of a request.", show_default=False)
    ] = None,
    unpadded: Annotated[
        bool, typer.Option("--unpadded", help="Draw few pictures in less time: the last bits may differ from those in a grid.")
    ] = False,
    precision: Annotated[str, typer.Option("--precision", help="That is computed in: fp32 or bf16.")] = "fp32",
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda; unset: a GPU where there is one.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Draw with adapters of other bases of the family, where shapes fit.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Draw pictures with a base and adapter files: a grid of adapters, prompts, weights and seeds, as PNG files with their parameters, a
    sheet of all, and generation.json. Works offline; an interrupted grid goes on where it was."""
    fields, wrong = _fields(asked, request)
    if precision not in _PRECISIONS:
        wrong.append(f"--precision: there is no {precision}; there is {' and '.join(_PRECISIONS)}")
    _draw(_parsed(fields, wrong), _uri(out), unpadded=unpadded, precision=precision, device=device, force=force, output=output)


def _parsed(fields: dict[str, Any], wrong: Sequence[str]) -> "GenerationSpec":
    from lorafleet import generation_spec

    try:
        spec = generation_spec.parse(fields)
    except InvalidInput as why:
        raise InvalidInput("\n".join([*wrong, str(why)])) from None
    if wrong:
        raise InvalidInput("\n".join(wrong))
    return spec


def _draw(spec: "GenerationSpec", out: str, *, unpadded: bool, precision: str, device: str | None, force: bool, output: Format) -> None:
    from trainer.generation import request as requests
    from trainer.generation.drawing import Drawing
    from trainer.generation.kept import KeptAdapters
    from trainer.storage import Folder

    _keep_libraries_quiet()
    base = requests.inspect(spec)
    sampler = requests.sampler(base, precision=precision, device=device)
    kept = KeptAdapters()
    request = requests.checked(spec, base, sampler, out, on_any_base=force, kept=kept)
    for note in request.notes():
        say(f"note: {note}", err=True, colour="yellow")
    drawing = Drawing(request, sampler, Folder(out), is_padded=not unpadded, kept=kept)
    total, there = len(request.cells), 0
    for number, (cell, is_new) in enumerate(drawing.draw(), start=1):
        there += not is_new
        if is_new:
            say(f"{number} of {total}: {cell.file_name(request.drawn)}", err=True)
    _tell(drawing, out, there, output)


def _keep_libraries_quiet() -> None:
    """What they say on loading is of what they would like to have, and bars of theirs would stand between our lines."""
    import logging

    from transformers.utils import logging as transformers

    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    transformers.set_verbosity_error()
    transformers.disable_progress_bar()


def _tell(drawing: "Drawing", out: str, there: int, output: Format) -> None:
    from lorafleet.commands.printing import print_plain

    answer = drawing.answer
    if output is not Format.TABLE:
        print_plain(answer, output)
        return
    place, drawn = out.removeprefix("file://"), answer["num_pictures"] - there
    say(f"{place}: {drawn} pictures drawn in {answer['seconds']:.1f} s" + (f", {there} were there" if there else ""))
    if (idle := answer["num_rows_drawn"] - drawn) > 0:
        rows = answer["num_rows_drawn"]
        say(f"{idle} of {rows} rows were only for equal bits alone and in a grid; --unpadded leaves them out", err=True)


# From options to fields


def _fields(asked: Asked, request: Path | None) -> tuple[dict[str, Any], list[str]]:
    """(fields of a request, what is wrong with the options)."""
    from lorafleet import spec_file

    wrong: list[str] = []
    fields = _with_uris(spec_file.read(request)) if request is not None else dict[str, Any]()
    given: dict[str, Any] = {
        "adapters": None if asked.adapters is None else [_set(each, wrong) for each in asked.adapters],
        "weights": asked.weights,
        "prompts": asked.prompts,
        "negative_prompts": asked.negative,
        "seeds": asked.seeds,
        "num_inference_steps": asked.steps,
        "guidance_scale": asked.guidance,
        "scheduler": asked.scheduler,
        **_size(asked.size, wrong),
    }
    fields |= {name: value for name, value in given.items() if value is not None}
    base = {name: value for name, value in (("uri", asked.base and _uri(asked.base)), ("family", asked.family)) if value is not None}
    if base:
        fields["base_model"] = {**(fields.get("base_model") or {}), **base}
    return fields, wrong


def _with_uris(fields: dict[str, Any]) -> dict[str, Any]:
    """Paths in a file are of where the command runs, as those of options are."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            known = cast(dict[str, Any], value)
            return {name: _uri(each) if name == "uri" and isinstance(each, str) else changed(each) for name, each in known.items()}
        return [changed(each) for each in cast(list[Any], value)] if isinstance(value, list) else value

    return changed(fields)


def _uri(place: str) -> str:
    return place if "://" in place else f"file://{Path(place).expanduser().absolute()}"


def _set(text: str, wrong: list[str]) -> list[dict[str, Any]]:
    """A file whose name has a plus or a colon is meant by itself, where it is there."""
    if text == ALONE:
        return []
    parts = [text] if Path(text).exists() else text.split("+")
    return [_use(part, wrong) for part in parts]


def _use(text: str, wrong: list[str]) -> dict[str, Any]:
    name, colon, weight = text.rpartition(":")
    if not colon or weight.startswith("//") or Path(text).exists():
        return {"uri": _uri(text)}
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        wrong.append(f"--adapter: {text}: {weight or 'nothing'} is no weight; write a number after the colon")
        number = 1.0
    return {"uri": _uri(name), "weight": number}


def _size(size: str | None, wrong: list[str]) -> dict[str, Any]:
    if size is None:
        return {}
    sides: Sequence[str] = size.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        wrong.append(f"--size: {size} is no WIDTHxHEIGHT, such as 512x768")
        return {}
    return {"width": int(sides[0]), "height": int(sides[1])}
