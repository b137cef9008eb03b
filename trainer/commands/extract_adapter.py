"""`lorafleet extract-adapter`: an adapter out of a base that was trained whole. Works offline; leaves a whole file, or none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lorafleet.errors import InvalidInput
from lorafleet.terminal import say
from trainer.commands.convert import Precision, To


def extract_adapter(
    tuned: Annotated[Path, typer.Argument(metavar="TUNED", help="Folder of what was trained, in diffusers' layout.", show_default=False)],
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Folder of what it was trained from.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; for peft a folder.", show_default=False)],
    rank: Annotated[int, typer.Option("--rank", min=1, max=4096, help="Of each layer, at most.")] = 32,
    energy: Annotated[float | None, typer.Option("--energy", help="Share of squared singular values to keep in each layer.")] = None,
    to: Annotated[To, typer.Option("--to", help="Format to write.")] = To.KOHYA,
    precision: Annotated[Precision, typer.Option("--precision", help="Of the numbers.")] = Precision.FP32,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
) -> None:
    """Find the adapter that is nearest to what training changed in a base, and tell what it leaves out."""
    from trainer.adapters.files.fused import NotHeld
    from trainer.adapters.files.writing import write
    from trainer.adapters.merging.extracting import extract
    from trainer.commands.whole_files import check_target, put

    if energy is not None and not 0 < energy <= 1:
        raise InvalidInput(f"--energy: {energy:g} is no share over 0 and up to 1")
    check_target(target, is_folder=to is To.PEFT, force=force)
    found = extract(tuned, base, _family(base), rank=rank, energy=energy)
    told = json.dumps({"tuned": tuned.name, "base": base.name, "rank": rank, "energy": energy, "weight_error": found.error})
    try:
        written = write(replace(found.adapter, metadata={"lorafleet.extracted": told}), to, precision=precision)
    except NotHeld as why:
        raise InvalidInput(f"the result {why}") from None
    put(target, written.files, force=force)
    for note in written.notes:
        say(f"note: {note}", err=True, colour="yellow")
    if found.others:
        say(f"note: {len(found.others)} tensors changed that no adapter sits on, such as {found.others[0]}", err=True, colour="yellow")
    say(
        f"{target}: {to}, {found.adapter.family}, {len(found.adapter.modules)} modules; {100 * found.error:.3g} % of the change is left out"
    )


def _family(base: Path) -> str:
    """Of a folder in diffusers' layout."""
    from lorafleet.catalog import detection
    from trainer import untrusted

    try:
        index = untrusted.json_object((base / "model_index.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInput(f"{base} has no model_index.json; name a folder in diffusers' layout") from None
    except untrusted.Refused as why:
        raise InvalidInput(f"{base}/model_index.json {why}") from None
    families = detection.of_pipeline(index)
    if not families:
        raise InvalidInput(f"{base} is {detection.unknown(index)}")
    denoiser = base / families[0].denoiser.config
    configs = {families[0].denoiser.name: untrusted.json_object(denoiser.read_bytes())} if len(families) > 1 else {}
    return detection.chosen(families, configs).name
