"""Which programs load an adapter file as it was trained, by family, method and format: facts, and why it is so where not. Pure.

docs/formats.md has them as a table; `make bench-formats` proves those of diffusers and PEFT, the others' are read in their sources.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorafleet.catalog.family import Family

YES, NEARLY, NO, WRONG = "yes", "nearly", "no", "WRONG"  # as trained; some per cent off; not at all; as something else
_TITLES = {"loha": "LoHa", "lokr": "LoKr", "oft": "OFT", "dora": "DoRA"}
_STABILITY = ("sd1", "sd2", "sdxl")
# Of ComfyUI's own names diffusers has converters for these families.
_DIFFUSERS_READS_COMFYUI = ("flux", "flux2", "zimage", "qwen_image", "krea2", "chroma")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one program makes of a file."""

    program: str
    loads: str
    why: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def of_file(
    family: Family, file_format: str, methods: Sequence[str], *, has_text: bool = False, has_input_magnitudes: bool = False
) -> list[Verdict]:
    """Of the programs that people use."""
    return [
        _diffusers(family, file_format, methods),
        _comfyui(family, file_format, methods, has_text=has_text),
        _webui(family, file_format, methods),
        _peft(file_format, methods, has_input_magnitudes=has_input_magnitudes),
    ]


def _diffusers(family: Family, file_format: str, methods: Sequence[str]) -> Verdict:
    program = "diffusers, load_lora_weights"
    if others := [_TITLES[method] for method in methods if method in ("loha", "lokr", "oft")]:
        return Verdict(program=program, loads=NO, why=f"loads no {' or '.join(others)} of this family")
    match file_format:
        case "kohya" if not family.diffusers_reads_kohya:
            return Verdict(program=program, loads=NO, why=f"has no converter of kohya's names for {family.name}")
        case "comfyui" if family.name not in _DIFFUSERS_READS_COMFYUI:
            return Verdict(program=program, loads=NO, why=f"has no converter of ComfyUI's names for {family.name}")
        case "peft":
            return Verdict(program=program, loads=NO, why="takes PEFT's folders by PeftModel, see below")
        case "kohya" | "comfyui" if "dora" in methods:
            return Verdict(program=program, loads=WRONG, why="drops DoRA's magnitudes, with only a warning")
        case _:
            return Verdict(program=program, loads=YES)


def _comfyui(family: Family, file_format: str, methods: Sequence[str], *, has_text: bool) -> Verdict:
    program = "ComfyUI"
    if file_format == "peft":
        return Verdict(program=program, loads=NO, why="takes no folders of PEFT")
    if file_format == "diffusers" and family.name in _STABILITY:
        return Verdict(program=program, loads=NO, why="does not know diffusers' names of UNets")
    if "dora" in methods:
        return Verdict(program=program, loads=NEARLY, why="newer ones norm the weights before training; older ones norm over inputs: WRONG")
    return Verdict(program=program, loads=YES)


def _webui(family: Family, file_format: str, methods: Sequence[str]) -> Verdict:
    program = "AUTOMATIC1111"
    if family.name not in _STABILITY:
        return Verdict(program=program, loads=NO, why="has Stable Diffusion 1, 2 and XL alone, and skips others silently")
    if file_format != "kohya":
        return Verdict(program=program, loads=NO, why="takes kohya's names alone")
    if "dora" in methods:
        return Verdict(program=program, loads=WRONG, why="takes DoRA's norm over inputs")
    return Verdict(program=program, loads=YES)


def _peft(file_format: str, methods: Sequence[str], *, has_input_magnitudes: bool) -> Verdict:
    program = "PEFT, PeftModel"
    if file_format != "peft":
        return Verdict(program=program, loads=NO, why="takes its own folders alone: lorafleet convert --to peft")
    if has_input_magnitudes:
        return Verdict(program=program, loads=WRONG, why="takes DoRA's norm over outputs")
    return Verdict(program=program, loads=YES)
