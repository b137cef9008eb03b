"""Names of tensors in adapter files: in front the format and the part, then the module, at the end the tensor's role. Pure."""

import re
from dataclasses import dataclass

# Ends of names -> (method, role). Longer ones first, where one is the end of another.
_LORA = {
    **{f".lora_{word}.weight": role for word, role in (("down", "A"), ("up", "B"), ("mid", "mid"), ("A", "A"), ("B", "B"))},
    **{f".lora_{word}.default.weight": word for word in "AB"},
    **{f".lora.{word}.weight": role for word, role in (("down", "A"), ("up", "B"))},
    **{f".lora_linear_layer.{word}.weight": role for word, role in (("down", "A"), ("up", "B"))},
    **{f"_lora.{word}.weight": role for word, role in (("down", "A"), ("up", "B"))},
    **{f".{word}": "magnitude" for word in ("lora_magnitude_vector.default.weight", "lora_magnitude_vector.weight")},
    ".lora_magnitude_vector": "magnitude",
    ".dora_scale": "magnitude",
}
_LOHA = {f".hada_{role}": role for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
_LOKR = {f".lokr_{role}": role for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
_OFT = {".oft_blocks": "blocks", ".rescale": "rescale"}
ENDS = {
    **{end: ("lora", role) for end, role in _LORA.items()},
    **{end: ("loha", role) for end, role in _LOHA.items()},
    **{end: ("lokr", role) for end, role in _LOKR.items()},
    **{end: ("oft", role) for end, role in _OFT.items()},
    ".alpha": ("", "alpha"),
}
# What other methods call their tensors, and why these are not read.
NOT_READ = {
    ".oft_R.weight": "PEFT's OFT, which turns a layer's inputs: another function than LyCORIS's OFT",
    ".oft_diag": "the older OFT of kohya's trainer",
    ".diff": "whole weights (LyCORIS full), no adapter",
    ".diff_b": "whole biases, no adapter",
    ".a1.weight": "GLoRA",
    ".lokr_t1": "LoKr with a third factor on its left",
    ".boft_R": "BOFT",
}
_PARTS = r"unet|transformer|text_encoder(?:_\d)?"
_KOHYA = re.compile(r"(lora_unet|lora_te\d?|lycoris)_(.+)")
_DIFFUSERS = re.compile(rf"({_PARTS})\.(.+)")
_PEFT = "base_model.model."
_COMFY = re.compile(r"diffusion_model\.(.+)")
_COMFY_TEXT = re.compile(r"text_encoders\.(\w+)\.transformer\.(.+)")
_PROCESSOR = re.compile(r"(.+)\.processor\.(to_(?:q|k|v|out))")
_BARE = re.compile(r"(?:down_blocks|up_blocks|mid_block|transformer_blocks|single_transformer_blocks|layers)\.")


@dataclass(frozen=True)
class Key:
    """`place`: what says in this format of which part the module is."""

    format: str
    place: str
    module: str  # as it is called in the file
    method: str
    role: str


def parse(name: str) -> Key | None:
    """None: it is nothing that is known of adapters."""
    end = next((end for end in ENDS if name.endswith(end)), None)
    if end is None or (begun := _begin(name.removesuffix(end))) is None:
        return None
    return Key(*begun, *ENDS[end])


def _begin(name: str) -> tuple[str, str, str] | None:
    if match := _KOHYA.fullmatch(name):
        return "kohya", match[1], match[2]
    if match := _COMFY.fullmatch(name):
        return "comfyui", "diffusion_model", match[1]
    if match := _COMFY_TEXT.fullmatch(name):
        return "comfyui", match[1], match[2]
    if name.startswith(_PEFT):
        return "peft", "", name.removeprefix(_PEFT)
    if match := _DIFFUSERS.fullmatch(name):
        return "diffusers", match[1], _without_processor(match[2])
    return ("peft", "", _without_processor(name)) if _BARE.match(name) else None


def _without_processor(module: str) -> str:
    """Of diffusers' first files, which kept adapters in attention processors."""
    if not (match := _PROCESSOR.fullmatch(module)):
        return module
    return f"{match[1]}.{match[2]}" + (".0" if match[2] == "to_out" else "")
