"""How much memory a pack takes on one worker: base + process + each member's adapter and activations. An estimate, on the high side.

What families, methods and optimizers take is in their facts (`lorafleet.catalog`). A family's activations are calibrated on the
tensors that autograd keeps (saved_tensors_hooks on meta tensors) in one forward pass of its denoiser, LoRA on every layer,
without the attention matrices, which the fused kernels do not keep. Of blocks that are recomputed in the backward pass there are
the inputs, and all that one of them computes, the largest.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod

from lorafleet.catalog import FAMILIES, METHODS, OPTIMIZERS, PRECISIONS, Method, Precision
from lorafleet.catalog.method import Shape, is_target
from lorafleet.spec_overrides import OverrideSpec, values_at

GIB = 2**30
PROCESS_BYTES = int(0.9 * GIB)  # torch, its libraries, Ray's worker
FP32_BYTES = 4
ACTIVATION_BYTES = {"fp32": 4, "bf16": 3, "fp16": 3}  # autocast keeps norms and residuals in fp32


@dataclass(frozen=True, kw_only=True)
class BaseShapes:
    """What the memory model needs to know of a base."""

    layers: Mapping[str, Shape]  # denoiser layer that an adapter can sit on -> shape of its weight
    num_params: int  # of the denoiser
    num_other_params: int  # of the parts around it, loaded in fp32 for encoding and sampling
    num_large_params: int = 0  # of text encoders as large as it, loaded in what the run computes in, for the same
    width: int  # channels of the denoiser's first block
    latent_side: int | None  # at the base's own resolution; None: it does not say
    pixels_per_latent: int  # along a side
    text_layers: Mapping[str, Mapping[str, Shape]] = field(
        default_factory=dict[str, Mapping[str, Shape]]
    )  # the same of the text encoders, by part


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that one style takes on a worker; what it shares with a pack apart from what it adds."""

    base_bytes: int
    num_adapter_params: int
    adapter_bytes: int  # weights, gradients and what the optimizer keeps
    activation_bytes: int
    num_rows: int  # pictures of one micro-batch
    picture_bytes: int = 0  # that the cache keeps of each
    caption_bytes: int = 0  # 0: not known
    bank: Hashable = None  # equal where the trainer stacks their adapters in one

    @property
    def shared_bytes(self) -> int:
        return PROCESS_BYTES + self.base_bytes

    @property
    def own_bytes(self) -> int:
        return self.adapter_bytes + self.activation_bytes


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What of a spec decides its memory."""

    family: str
    precision: str
    method: str
    rank: int
    target_modules: tuple[str, ...]
    resolution: int | None  # pixels, the largest; unset: the base's own
    micro_batch_size: int
    text_precision: str = ""  # of text encoders as large as the denoiser; unset: what is usual beside its precision
    optimizer: str = "adamw"
    text_encoder: bool = False
    factor: int | None = None  # of methods that take one
    recomputes: bool = False  # the denoiser's blocks in the backward pass
    samples_latents: bool = False  # whose deviations are kept, too
    smaller_resolutions: tuple[int, ...] = ()  # that pictures are kept at besides
    keeps_average: bool = False  # of the adapter
    overrides: tuple[OverrideSpec, ...] = ()  # whose ranks are layers' own
    subtracts: bool = False  # what the adapter began with, again
    bank: Hashable = None  # see Footprint


def footprint(base: BaseShapes, ask: Ask) -> Footprint | None:
    """What a style on this base takes; None when neither of them says how large its pictures are."""
    side = _latent_side(base, ask)
    if side is None:
        return None
    precision = PRECISIONS.get(ask.precision)
    return Footprint(
        base_bytes=precision.held_bytes(base.num_params, base.layers)
        + base.num_other_params * FP32_BYTES
        + _text_precision(ask).held_bytes(base.num_large_params, _large_layers(base, ask)),
        num_adapter_params=sum(map(prod, _tensors(base, ask))),
        adapter_bytes=adapter_bytes(base, ask),
        activation_bytes=_num_values(base, ask, side) * ACTIVATION_BYTES[precision.computes],
        num_rows=ask.micro_batch_size,
        picture_bytes=_picture_bytes(base, ask, side),
        caption_bytes=_caption_bytes(ask),
        bank=ask.bank,
    )


def _text_precision(ask: Ask) -> Precision:
    return PRECISIONS.get(ask.text_precision or PRECISIONS.get(ask.precision).encodes)


def _large_layers(base: BaseShapes, ask: Ask) -> dict[str, Shape]:
    """Of the text encoders as large as the denoiser."""
    large = [part.name for part in FAMILIES.get(ask.family).text_encoders if part.is_large]
    return {f"{part}.{path}": shape for part in large for path, shape in base.text_layers.get(part, {}).items()}


def _picture_bytes(base: BaseShapes, ask: Ask, side: int) -> int:
    sides = [side, *(ceil(resolution / base.pixels_per_latent) for resolution in ask.smaller_resolutions)]
    return FAMILIES.get(ask.family).latent_channels * sum(each * each for each in sides) * FP32_BYTES * (2 if ask.samples_latents else 1)


def _caption_bytes(ask: Ask) -> int:
    """As they are computed: fp32, of large text encoders perhaps half of that."""
    family = FAMILIES.get(ask.family)
    return family.text_values * FP32_BYTES + family.large_text_values * _text_precision(ask).number_bytes


def _num_values(base: BaseShapes, ask: Ask, side: int) -> int:
    """That are kept for the backward pass."""
    each = FAMILIES.get(ask.family).num_values(side * side, recomputes=ask.recomputes)
    return ceil(each * base.width * ask.micro_batch_size * _method(ask).activations)


def _latent_side(base: BaseShapes, ask: Ask) -> int | None:
    """As the trainer takes pictures: as asked, else as the base says, else as its family is trained."""
    if ask.resolution is None and base.latent_side is not None:
        return base.latent_side
    resolution = ask.resolution or FAMILIES.get(ask.family).resolution
    return None if resolution is None else ceil(resolution / base.pixels_per_latent)


def adapter_bytes(base: BaseShapes, ask: Ask) -> int:
    """Weights, gradients and their moving average, all fp32, what the optimizer keeps for them, and the method for a backward pass.

    Where what it began with is subtracted, that too, the difference, and both as sides of twice the rank.
    """
    optimizer, num_each = OPTIMIZERS.get(ask.optimizer), 2 + ask.keeps_average + 4 * ask.subtracts
    held = sum(num_each * FP32_BYTES * prod(shape) + optimizer.state_bytes(shape) for shape in _tensors(base, ask))
    return held + FP32_BYTES * _num_made(base, ask)


def _method(ask: Ask) -> Method:
    return METHODS.get(ask.method).cut_by(ask.factor)


def _num_made(base: BaseShapes, ask: Ask) -> int:
    """Numbers that the method makes of its own tensors for a pass; where blocks are recomputed, those of one block."""
    by_block: dict[str, int] = {}
    for name, shape in _targets(base, ask).items():
        block = ".".join(name.split(".")[:3]) if ask.recomputes else ""
        by_block[block] = by_block.get(block, 0) + _method(ask).made(_rank(ask, name), shape)
    return max(by_block.values(), default=0)


def _tensors(base: BaseShapes, ask: Ask) -> Iterator[Shape]:
    """Those of the adapter."""
    for path, weight in _targets(base, ask).items():
        yield from _method(ask).tensors(_rank(ask, path), weight).values()


def _rank(ask: Ask, path: str) -> int:
    return values_at(ask.overrides, path, ["rank"]).get("rank", ask.rank)


def _targets(base: BaseShapes, ask: Ask) -> dict[str, Shape]:
    """The weights of the layers that the adapter sits on, by part and module."""
    family = FAMILIES.get(ask.family)
    layers = {family.denoiser.name: base.layers, **base.text_layers}
    ends = family.targets(ask.target_modules, text_encoders=ask.text_encoder)
    found = ((part, name, shape) for part in ends for name, shape in layers.get(part, {}).items())
    return {f"{part}.{name}": shape for part, name, shape in found if is_target(name, ends[part])}


def pack_bytes(members: Sequence[Footprint]) -> int:
    """What the pack takes: base and process once, adapters and activations of all."""
    return max(member.shared_bytes for member in members) + sum(member.own_bytes for member in members) + _idle_bytes(members)


def _idle_bytes(members: Sequence[Footprint]) -> int:
    """Activations of the idle rows that the trainer pairs a style with which is alone in its bank, for the sake of its bits."""
    return sum(member.activation_bytes for member in _paired(members))


def _paired(members: Sequence[Footprint]) -> list[Footprint]:
    num_in = Counter(member.bank for member in members)
    return [member for member in members if len(members) > 1 and num_in[member.bank] == 1]


def arithmetic(members: Sequence[Footprint]) -> str:
    """How `pack_bytes` is made up, for people."""
    many = "adapter" if len(members) == 1 else f"{len(members)} adapters"
    num_rows = sum(member.num_rows for member in members)
    rows = "1 picture" if num_rows == 1 else f"{num_rows} pictures"
    paired = _paired(members)
    idle = f" + of {sum(member.num_rows for member in paired)} idle rows {gib(_idle_bytes(members))}" if paired else ""
    return (
        f"base {gib(max(member.base_bytes for member in members))}"
        f" + {many} {gib(sum(member.adapter_bytes for member in members))}"
        f" + activations of {rows} {gib(sum(member.activation_bytes for member in members))}{idle}"
        f" + process {gib(PROCESS_BYTES)} = {gib(pack_bytes(members))}"
    )


def gib(num_bytes: int) -> str:
    """`1.6 GiB`; small values keep two digits."""
    value = num_bytes / GIB
    return f"{value:.1f} GiB" if value >= 1 else f"{value:.2f} GiB"
