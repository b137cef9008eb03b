"""Which programs load an adapter file as it was trained, by family, method and format: facts, and why it is so where not. Pure.

docs/formats.md has them as a table; `make bench-formats` proves those of diffusers and PEFT, the others' are read in their sources.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorafleet.catalog import METHODS
from lorafleet.catalog.family import Family

YES, NEARLY, NO, WRONG = "yes", "nearly", "no", "WRONG"  # as trained; some per cent off; not at all; as something else
UNKNOWN = "?"  # not known to us
_TITLES = {"loha": "LoHa", "lokr": "LoKr", "oft": "OFT"}
_STABILITY = ("sd1", "sd2", "sdxl")
# What diffusers makes of names that it has no whole converter for: of others it raises.
_SILENT = {("sd3", "kohya"), ("krea2", "kohya"), ("flux", "comfyui"), ("chroma", "comfyui")}
_IN_PART = {("zimage", "kohya")}
_COMFYUI_READS_DIFFUSERS = ("sd3", "flux", "chroma")  # comfy/lora.py: keys with "transformer." in front
_DIFFUSERS_READS_COMFYUI = ("qwen_image",)


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
    if others := [_TITLES[name] for name in methods if name in _TITLES and not METHODS.get(name).diffusers_loads(family.name)]:
        return Verdict(program=program, loads=NO, why=f"loads no {' or '.join(others)} of this family")
    if file_format == "peft":
        return Verdict(program=program, loads=NO, why="takes PEFT's folders by PeftModel, see below")
    if (family.name, file_format) in _IN_PART:
        return Verdict(program=program, loads=WRONG, why="loads a part of these names, and does not say so")
    if (family.name, file_format) in _SILENT:
        return Verdict(program=program, loads=NO, why="loads none of these names, and does not say so")
    reads = {"kohya": family.diffusers_reads_kohya, "comfyui": family.name in _DIFFUSERS_READS_COMFYUI}
    if not reads.get(file_format, True):
        return Verdict(program=program, loads=NO, why=f"has no converter of these names for {family.name}, and says so")
    if "lokr" in methods and file_format != "diffusers":
        return Verdict(program=program, loads=NO, why="loads LoKr by its own names alone")
    if "dora" in methods and file_format != "diffusers":
        return Verdict(program=program, loads=WRONG, why="drops DoRA's magnitudes, with only a warning")
    return Verdict(program=program, loads=YES)


def _comfyui(family: Family, file_format: str, methods: Sequence[str], *, has_text: bool) -> Verdict:
    program = "ComfyUI"
    if file_format == "peft":
        return Verdict(program=program, loads=NO, why="takes no folders of PEFT")
    if file_format == "diffusers" and family.name in _STABILITY:
        return Verdict(program=program, loads=NO, why="does not know diffusers' names of UNets")
    if file_format == "diffusers" and family.name not in _COMFYUI_READS_DIFFUSERS:
        return Verdict(program=program, loads=UNKNOWN, why=f"diffusers' names of {family.name} were not looked for in its sources")
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
