"""What the modules of SDXL's UNet are called in the code that it was published with (sgm): kohya's files name them so. Pure.

That UNet is three lists. `input_blocks` begins with the first convolution; each residual layer is a block of its own, with its
attention beside it, and so is each downsampling. `middle_block` has residual layers and attentions in turn. In `output_blocks` each
residual layer is a block again, and an upsampling is the last thing in the last block of its level.
"""

import re
from collections.abc import Collection, Container, Iterator, Mapping

from lorafleet.catalog.parts import ATTENTION

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESIDUAL = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
_SAMPLERS = {"downsamplers": "op", "upsamplers": "conv"}
_LAYER = re.compile(r"((?:down_blocks|up_blocks)\.\d+|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")

MOST_LEVELS, MOST_TRANSFORMERS = 4, 10  # of the published UNets
_INNER = (
    *("proj_in", "proj_out"),
    *(
        f"transformer_blocks.{number}.{name}"
        for number in range(MOST_TRANSFORMERS)
        for name in (*(f"{attention}.{to}" for attention in ("attn1", "attn2") for to in ATTENTION), "ff.net.0.proj", "ff.net.2")
    ),
)

Layer = tuple[str, str, int]  # (down_blocks.1, attentions, 0)


def sgm_names(modules: Collection[str]) -> dict[str, str]:
    """Of each module by diffusers' name the name in sgm's UNet; what has none there keeps its own.

    `modules`: all modules of the denoiser that have weights, whichever of them are trained: how many layers there are, and which of
    them have attention, is told by their names alone.
    """
    found = {module: match for module in modules if (match := _LAYER.fullmatch(module))}
    layers = {(match[1], match[2], int(match[3])) for match in found.values()}
    places = {**dict(_down(layers)), **dict(_middle(layers)), **dict(_up(layers))}
    return {module: _named(module, found.get(module), places) for module in modules}


def unet_modules(num_layers: int, *, attends: Container[str]) -> Iterator[str]:
    """All modules that adapters may sit on of a UNet whose levels have so many layers, by diffusers' names. `attends`: its blocks that
    have attention, such as up_blocks.1."""
    yield from _OUTSIDE
    levels = range(MOST_LEVELS)
    counts = {f"down_blocks.{level}": num_layers for level in levels} | {f"up_blocks.{level}": num_layers + 1 for level in levels}
    for block, count in {**counts, "mid_block": 2}.items():
        yield from (f"{block}.resnets.{number}.{name}" for number in range(count) for name in _RESIDUAL)
        if block in attends or block == "mid_block":
            attentions = 1 if block == "mid_block" else count
            yield from (f"{block}.attentions.{number}.{name}" for number in range(attentions) for name in _INNER)
    yield from (f"down_blocks.{level}.downsamplers.0.conv" for level in levels)
    yield from (f"up_blocks.{level}.upsamplers.0.conv" for level in levels)


def _named(module: str, match: re.Match[str] | None, places: Mapping[Layer, str]) -> str:
    if match is None:
        return _OUTSIDE.get(module, module)
    block, kind, number, rest = match[1], match[2], int(match[3]), match[4]
    inner = _SAMPLERS[kind] if kind in _SAMPLERS and rest == "conv" else _RESIDUAL.get(rest, rest) if kind == "resnets" else rest
    return f"{places[block, kind, number]}.{inner}"


def _down(layers: Collection[Layer]) -> Iterator[tuple[Layer, str]]:
    place = 1  # after the first convolution
    for block in _blocks(layers, "down_blocks"):
        for number in range(_count(layers, block, "resnets")):
            yield (block, "resnets", number), f"input_blocks.{place}.0"
            yield (block, "attentions", number), f"input_blocks.{place}.1"
            place += 1
        for number in range(_count(layers, block, "downsamplers")):
            yield (block, "downsamplers", number), f"input_blocks.{place}.0"
            place += 1


def _middle(layers: Collection[Layer]) -> Iterator[tuple[Layer, str]]:
    for number in range(_count(layers, "mid_block", "resnets")):
        yield ("mid_block", "resnets", number), f"middle_block.{2 * number}"
        yield ("mid_block", "attentions", number), f"middle_block.{2 * number + 1}"


def _up(layers: Collection[Layer]) -> Iterator[tuple[Layer, str]]:
    place = 0
    for block in _blocks(layers, "up_blocks"):
        for number in range(_count(layers, block, "resnets")):
            yield (block, "resnets", number), f"output_blocks.{place}.0"
            yield (block, "attentions", number), f"output_blocks.{place}.1"
            place += 1
        beside = 2 if _count(layers, block, "attentions") else 1
        for number in range(_count(layers, block, "upsamplers")):
            yield (block, "upsamplers", number), f"output_blocks.{place - 1}.{beside}"


def _blocks(layers: Collection[Layer], side: str) -> list[str]:
    """In their order."""
    numbers = {int(block.partition(".")[2]) for block, _, _ in layers if block.startswith(f"{side}.")}
    return [f"{side}.{number}" for number in sorted(numbers)]


def _count(layers: Collection[Layer], block: str, kind: str) -> int:
    return max((number + 1 for of, what, number in layers if of == block and what == kind), default=0)
