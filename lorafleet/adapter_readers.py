"""Which programs load an adapter file as it was trained, by family, method and format: facts, and why it is so where not. Pure.

docs/formats.md has them as a table; `make bench-formats` proves those of diffusers and PEFT, the others' are read in their sources.
`lorafleet validate` says before what is to be known of a spec's files, the model card after, and `inspect-adapter` of any file.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorafleet.catalog import METHODS
from lorafleet.catalog.family import Family
from lorafleet.spec import Spec

YES, NEARLY, NO, WRONG = "yes", "nearly", "no", "WRONG"  # as trained; some per cent off; not at all; as something else
UNKNOWN = "?"  # not known to us
_TITLES = {"loha": "LoHa", "lokr": "LoKr", "oft": "OFT"}
_STABILITY = ("sd1", "sd2", "sdxl")
# What diffusers makes of names that it has no whole converter for: of others it raises.
_SILENT = {("sd3", "kohya"), ("krea2", "kohya"), ("flux", "comfyui"), ("chroma", "comfyui")}
_IN_PART = {("zimage", "kohya")}
# comfy/lora.py: keys with "transformer." in front.
_COMFYUI_READS_DIFFUSERS = ("sd3", "flux", "chroma", "flux2", "zimage", "qwen_image")
_DIFFUSERS_READS_COMFYUI = ("qwen_image",)


_DIFFUSERS, _COMFYUI, _WEBUI, _PEFT = "diffusers, load_lora_weights", "ComfyUI", "AUTOMATIC1111", "PEFT, PeftModel"
# DoRA's weight is g (W + BA) / |W + BA|, the norm taken over each output's weights (Liu et al. 2024). Readers differ in whose norm they
# divide by: program and format -> what it makes of the file, and why.
_NEWER_COMFYUI = (NEARLY, "newer ones norm the weights before training; older ones norm over inputs: WRONG")
_OF_DORA = {
    (_DIFFUSERS, "diffusers"): (YES, ""),
    (_DIFFUSERS, "kohya"): (WRONG, "drops DoRA's magnitudes, with only a warning"),
    (_DIFFUSERS, "comfyui"): (WRONG, "drops DoRA's magnitudes, with only a warning"),
    (_COMFYUI, "kohya"): _NEWER_COMFYUI,
    (_COMFYUI, "comfyui"): _NEWER_COMFYUI,
    (_COMFYUI, "diffusers"): (WRONG, "drops DoRA's magnitudes, with only a warning"),
    (_WEBUI, "kohya"): (WRONG, "takes DoRA's norm over inputs"),
    (_PEFT, "peft"): (YES, ""),
    ("LyCORIS, merging with wd_on_output", "kohya"): (YES, ""),
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one program makes of a file."""

    program: str
    loads: str
    why: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def of_file(family: Family, file_format: str, methods: Sequence[str], *, has_input_magnitudes: bool = False) -> list[Verdict]:
    """Of the programs that people use."""
    return [
        _diffusers(family, file_format, methods),
        _comfyui(family, file_format, methods),
        _webui(family, file_format, methods),
        _of_peft(file_format, methods, has_input_magnitudes=has_input_magnitudes),
    ]


def of_tokens(names: Sequence[str]) -> list[Verdict]:
    """The same of a file of a new token, whose tensors are called so."""
    how = "takes no file of two text encoders: give each of clip_l and clip_g to its own" if len(names) > 1 else ""
    how = "takes the name in the file for the token: pass token=" if list(names) == ["emb_params"] else how
    by_file = "knows the token by the name of the file"
    return [
        Verdict(program="diffusers, load_textual_inversion", loads=YES, why=how),
        Verdict(program=_COMFYUI, loads=YES, why=f"{by_file}: embedding:NAME"),
        Verdict(program=_WEBUI, loads=YES, why=by_file),
    ]


def of_spec(spec: Spec) -> list[tuple[str, Verdict]]:
    """(format, what a program makes of that file), of a spec whose files are not read alike by all; none of any other."""
    if spec.adapter.method != "dora":
        return []
    unread = set[tuple[str, str]]() if spec.base_model.family in _COMFYUI_READS_DIFFUSERS else {(_COMFYUI, "diffusers")}
    of_formats = [(key, found) for key, found in _OF_DORA.items() if key[1] in spec.output.formats and key not in unread]
    return [(each, Verdict(program=program, loads=loads, why=why)) for (program, each), (loads, why) in of_formats]


def hints(spec: Spec) -> list[str]:
    """What whoever writes this spec should know of its files, a sentence each."""
    told = of_spec(spec)
    found = [f"the {name} file in {each.program}: {each.loads}" + (f", {each.why}" if each.why else "") for name, each in told]
    if found and not {"diffusers", "peft"}.intersection(spec.output.formats):
        found.append("output.formats: add diffusers: of DoRA, kohya's layout alone is read rightly by hardly any program")
    if found and spec.output.plain_lora_rank is None:
        found.append("output.plain_lora_rank: writes the nearest plain LoRA beside it, which every program reads")
    return found


def _diffusers(family: Family, file_format: str, methods: Sequence[str]) -> Verdict:
    program = _DIFFUSERS
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
    return _of_method(program, file_format, methods)


def _of_method(program: str, file_format: str, methods: Sequence[str]) -> Verdict:
    """Of a file whose names the program knows."""
    loads, why = _OF_DORA[program, file_format] if "dora" in methods else (YES, "")
    return Verdict(program=program, loads=loads, why=why)


def _comfyui(family: Family, file_format: str, methods: Sequence[str]) -> Verdict:
    program = _COMFYUI
    if file_format == "peft":
        return Verdict(program=program, loads=NO, why="takes no folders of PEFT")
    if file_format == "diffusers" and family.name in _STABILITY:
        return Verdict(program=program, loads=NO, why="does not know diffusers' names of UNets")
    if file_format == "diffusers" and family.name not in _COMFYUI_READS_DIFFUSERS:
        return Verdict(program=program, loads=UNKNOWN, why=f"diffusers' names of {family.name} were not looked for in its sources")
    return _of_method(program, file_format, methods)


def _webui(family: Family, file_format: str, methods: Sequence[str]) -> Verdict:
    program = _WEBUI
    if family.name not in _STABILITY:
        return Verdict(program=program, loads=NO, why="has Stable Diffusion 1, 2 and XL alone, and skips others silently")
    if file_format != "kohya":
        return Verdict(program=program, loads=NO, why="takes kohya's names alone")
    return _of_method(program, file_format, methods)


def _of_peft(file_format: str, methods: Sequence[str], *, has_input_magnitudes: bool) -> Verdict:
    program = _PEFT
    if file_format != "peft":
        return Verdict(program=program, loads=NO, why="takes its own folders alone: lorafleet convert --to peft")
    if has_input_magnitudes:
        return Verdict(program=program, loads=WRONG, why="takes DoRA's norm over outputs")
    return Verdict(program=program, loads=YES)
