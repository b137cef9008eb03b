"""`lorafleet convert`: an adapter file in another format. Works offline; leaves a whole file, or none."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorafleet.errors import InvalidInput
from lorafleet.terminal import say

if TYPE_CHECKING:
    from trainer.adapters.files.contents import AdapterFile


class To(StrEnum):
    """Formats that are written."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"
    PEFT = "peft"
    COMFYUI = "comfyui"


class Precision(StrEnum):
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A .safetensors file, or PEFT's folder.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; for peft a folder.", show_default=False)],
    to: Annotated[To, typer.Option("--to", help="Format to write.", show_default=False)],
    precision: Annotated[Precision | None, typer.Option("--precision", help="Of the numbers; unset: as they are.")] = None,
    family: Annotated[
        str | None, typer.Option("--family", help="Model family, where the file does not tell, such as flux or chroma.")
    ] = None,
    as_lora: Annotated[
        int | None,
        typer.Option("--as-lora", metavar="RANK", min=1, max=4096, help="Write the nearest plain LoRA of this rank, and tell its error."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder of the base, in diffusers' layout: --as-lora needs it for DoRA and OFT.")
    ] = None,
    fold: Annotated[bool, typer.Option("--fold", help="To diffusers: put all of the scale into the weights, rounded.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
) -> None:
    """Write an adapter file in another format: the same numbers to the last bit, or it is said what is not."""
    from trainer.adapters.files.fused import NotHeld
    from trainer.adapters.files.reading import read_path
    from trainer.adapters.files.writing import write
    from trainer.commands.options import checked_family
    from trainer.commands.whole_files import check_target, put

    check_target(target, is_folder=to is To.PEFT, force=force)
    adapter = read_path(source, checked_family(family))
    if as_lora is not None:
        adapter = _nearest(adapter, as_lora, base)
    try:
        written = write(adapter, to, family=_one_family(adapter, to), precision=precision, fold=fold)
    except NotHeld as why:
        hint = "" if as_lora is not None else "; --as-lora RANK writes the nearest plain LoRA"
        raise InvalidInput(
            f"{source} {why}{hint if 'hold LoRA' in str(why) or 'one layer' in str(why) or 'DoRA' in str(why) else ''}"
        ) from None
    put(target, written.files, force=force)
    for note in written.notes:
        say(f"note: {note}", err=True, colour="yellow")
    say(f"{target}: {to}, {adapter.family}, {len(adapter.modules)} modules, {', '.join(adapter.methods)}")


def _nearest(adapter: "AdapterFile", rank: int, base: Path | None) -> "AdapterFile":
    from trainer.adapters.files.base_weights import weights_of
    from trainer.adapters.files.updates import NEED_WEIGHTS, as_lora

    needed = [module.paths[0] for module in adapter.modules if module.method in NEED_WEIGHTS]
    weights = weights_of(base, needed) if base is not None and needed else None
    found = as_lora(adapter, rank, weights)
    error, (worst, where) = found.error, found.worst
    say(f"as LoRA of rank {rank}: {100 * error:.3g} % of the update is left out, at most {100 * worst:.3g} % ({where})", err=True)
    return replace(found.adapter, metadata={**adapter.metadata, "lorafleet.as_lora_error": f"{error:.6g}"})


def _one_family(adapter: "AdapterFile", to: To) -> str:
    """The file's; where several fit it, they must call its modules alike."""
    first, *others = adapter.families
    for other in others:
        names, theirs = adapter.names(first), adapter.names(other)
        denoising = [module.path for module in adapter.modules if module.part in ("unet", "transformer")]
        same = to in (To.DIFFUSERS, To.PEFT) or all(
            names.original.get(path) == theirs.original.get(path) and names.kohya.get(path) == theirs.kohya.get(path) for path in denoising
        )
        if not same:
            raise InvalidInput(f"the file may be of {' or '.join(adapter.families)}, which have other names there: say which with --family")
    return first
