"""The rules on what a job writes: which formats hold its method, and when a plain LoRA beside it is one. Pure; `spec_rules` lists them."""

from collections.abc import Sequence

from lorafleet.catalog import METHODS, PRECISIONS, file_names


def formats_hold_the_method(formats: Sequence[str], method: str, family: str | None) -> str | None:
    if "peft" in formats and "lora_A.weight" not in METHODS.get(method).names.values():
        return f'PEFT has no "{method}" as it is trained here; write kohya or comfyui'
    if family is not None and {"peft", "comfyui"}.intersection(formats) and file_names.of(family) is None:
        return f"what the modules of {family} are called in PEFT's and ComfyUI's files is not known; write diffusers or kohya"
    if "diffusers" not in formats or METHODS.get(method).diffusers_loads(family):
        return None
    return f'diffusers loads no "{method}" of {family or "any family"}; write kohya alone, which ComfyUI reads'


def plain_is_another(rank: int | None, method: str, alone: bool) -> str | None:
    """Of tokens alone that is another rule's to say."""
    facts = METHODS.get(method)
    if rank is None or alone or facts.ranks_by_noise or set(facts.names) != {"A", "B"}:
        return None
    return f'"{method}" is a plain LoRA already, which every program reads: leave it out'


def plain_has_weights(rank: int | None, method: str, precision: str) -> str | None:
    """Of DoRA, which reads them in training too, that is another rule's to say."""
    facts = METHODS.get(method)
    if rank is None or facts.adds or facts.reads_weights or PRECISIONS.get(precision).quantised_bytes is None:
        return None
    return (
        f'what "{method}" adds is made of the weights themselves, which training.precision {precision} has not; use bf16, or leave it out'
    )


def plain_has_layers(rank: int | None, zero_stage: int) -> str | None:
    if rank is None or zero_stage != 3:
        return None
    return "is made layer by layer, of layers that cluster.zero_stage 3 cuts; use zero_stage 0 to 2"
