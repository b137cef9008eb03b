"""Which programs apply a LoRA file as it was trained: said by `lorafleet validate` before, and by the model card after. Pure."""

from dataclasses import dataclass
from typing import Literal

from lorafleet.spec import Spec

Verdict = Literal["as trained", "nearly", "WRONG"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What a program makes of a DoRA's file in one layout."""

    program: str
    file_format: str
    verdict: Verdict
    why: str


# DoRA's weight is g * (W + BA) / |W + BA|, the norm taken over each output's weights (Liu et al. 2024). Readers of kohya's layout
# differ in whose norm they divide by. Checked against the installed diffusers and PEFT, and in the others' sources.
DORA = (
    Reader(program="diffusers with PEFT", file_format="diffusers", verdict="as trained", why="keeps the magnitudes"),
    Reader(program="LyCORIS, merging with wd_on_output", file_format="kohya", verdict="as trained", why="takes the norm over outputs"),
    Reader(
        program="newer ComfyUI and Forge Neo",
        file_format="kohya",
        verdict="nearly",
        why="take the norm over outputs, but of the weights before training: some per cent of the update off",
    ),
    Reader(
        program="newer ComfyUI",
        file_format="comfyui",
        verdict="nearly",
        why="take the norm over outputs, but of the weights before training: some per cent of the update off",
    ),
    Reader(program="older ComfyUI", file_format="comfyui", verdict="WRONG", why="take the norm over inputs"),
    Reader(program="older ComfyUI, AUTOMATIC1111, Forge", file_format="kohya", verdict="WRONG", why="take the norm over inputs"),
    Reader(program="diffusers", file_format="kohya", verdict="WRONG", why="drops the magnitudes, with only a warning"),
)


def of(spec: Spec) -> tuple[Reader, ...]:
    """The readers of this spec's files that are worth a word; none where every usual one is right."""
    return tuple(reader for reader in DORA if reader.file_format in spec.output.formats) if spec.adapter.method == "dora" else ()


def hints(spec: Spec) -> list[str]:
    """What whoever writes this spec should know of its files, a sentence each."""
    found = [f"{each.program}: {each.verdict}, {each.file_format}'s file: it {each.why}" for each in of(spec)]
    if found and not {"diffusers", "peft"}.intersection(spec.output.formats):
        found.append("output.formats: add diffusers: of DoRA, kohya's layout alone is read rightly by hardly any program")
    return found
