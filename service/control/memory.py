"""How much memory a pack takes on one worker: base + process + each member's adapter and activations. An estimate, on the high side.

Calibrated on the tensors that autograd keeps (saved_tensors_hooks on meta tensors) in one forward pass of Stable Diffusion
1.5's UNet and of examples/models/emoji-sd, LoRA on every layer: 290 to 510 values for each latent pixel and channel of the
first block, without the attention matrices, which the fused kernels do not keep.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

GIB = 2**30
PROCESS_BYTES = int(0.9 * GIB)  # torch, its libraries, Ray's worker
# For each adapter parameter: fp32 weight and gradient, and AdamW's two moments.
BYTES_PER_ADAPTER_PARAM = 4 + 4 + 8
FP32_BYTES = 4
PARAM_BYTES = {"fp32": 4, "bf16": 2}  # of the frozen denoiser as it is loaded
ACTIVATION_BYTES = {"fp32": 4, "bf16": 3}  # autocast keeps norms and residuals in fp32
# Values kept for the backward pass, for each latent pixel and channel of the first block, by family.
VALUES_PER_PIXEL = {"sd1": 550}

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class BaseShapes:
    """What the memory model needs to know of a base."""

    layers: Mapping[str, Shape]  # denoiser layer that an adapter can sit on -> shape of its weight
    num_params: int  # of the denoiser
    num_other_params: int  # of the parts around it, loaded in fp32 for encoding and sampling
    width: int  # channels of the denoiser's first block
    latent_side: int | None  # at the base's own resolution; None: it does not say
    pixels_per_latent: int  # along a side


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that one style takes on a worker; what it shares with a pack apart from what it adds."""

    base_bytes: int
    adapter_bytes: int
    activation_bytes: int
    num_rows: int  # pictures of one micro-batch

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
    resolution: int | None  # pixels; unset: the base's own
    micro_batch_size: int


def footprint(base: BaseShapes, ask: Ask) -> Footprint | None:
    """What a style on this base takes; None when neither of them says how large its pictures are."""
    side = base.latent_side if ask.resolution is None else ceil(ask.resolution / base.pixels_per_latent)
    if side is None:
        return None
    values = VALUES_PER_PIXEL[ask.family] * base.width * side * side * ask.micro_batch_size
    return Footprint(
        base_bytes=base.num_params * PARAM_BYTES[ask.precision] + base.num_other_params * FP32_BYTES,
        adapter_bytes=num_adapter_params(base.layers, ask.target_modules, ask.rank, ask.method) * BYTES_PER_ADAPTER_PARAM,
        activation_bytes=values * ACTIVATION_BYTES[ask.precision],
        num_rows=ask.micro_batch_size,
    )


def num_adapter_params(layers: Mapping[str, Shape], target_modules: Sequence[str], rank: int, method: str) -> int:
    """Parameters of a LoRA of that rank on the layers that the names end (as PEFT matches them); DoRA adds a magnitude for each output."""
    shapes = [shape for name, shape in layers.items() if is_target(name, target_modules)]
    magnitudes = sum(shape[0] for shape in shapes) if method == "dora" else 0
    return sum(_lora_params(shape, rank) for shape in shapes) + magnitudes


def is_target(layer: str, target_modules: Iterable[str]) -> bool:
    """Whether one of the names is the layer's path or its end."""
    return any(layer == name or layer.endswith(f".{name}") for name in target_modules)


def pack_bytes(members: Sequence[Footprint]) -> int:
    """What the pack takes: base and process once, adapters and activations of all."""
    return max(member.shared_bytes for member in members) + sum(member.own_bytes for member in members)


def arithmetic(members: Sequence[Footprint]) -> str:
    """How `pack_bytes` is made up, for people."""
    many = "adapter" if len(members) == 1 else f"{len(members)} adapters"
    num_rows = sum(member.num_rows for member in members)
    rows = "1 picture" if num_rows == 1 else f"{num_rows} pictures"
    return (
        f"base {gib(max(member.base_bytes for member in members))}"
        f" + {many} {gib(sum(member.adapter_bytes for member in members))}"
        f" + activations of {rows} {gib(sum(member.activation_bytes for member in members))}"
        f" + process {gib(PROCESS_BYTES)} = {gib(pack_bytes(members))}"
    )


def gib(num_bytes: int) -> str:
    """`1.6 GiB`; small values keep two digits."""
    value = num_bytes / GIB
    return f"{value:.1f} GiB" if value >= 1 else f"{value:.2f} GiB"


def _lora_params(shape: Shape, rank: int) -> int:
    """A: (rank, in) and B: (out, rank); on a convolution A has the kernel: (rank, in, height, width)."""
    return rank * (prod(shape[1:]) + shape[0])
