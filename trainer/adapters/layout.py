"""One adapter as one row of numbers: which module's tensor lies where in it, and how it begins. Knows no model at work.

Tensors have one canonical name wherever they go (checkpoint, export): `unet.<module>.lora_A.weight`, `….lora_B.weight`,
and DoRA's `….lora_magnitude_vector`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from lorafleet.errors import RunFailed
from lorafleet.spec import AdapterSpec
from trainer.keyed import Key, Purpose

TEXT_ENCODER_MODULES = ("q_proj", "k_proj", "v_proj", "out_proj")
ROLES = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector"}


Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Kind:
    """What adapters must have in common to be stacked: their tensors then have the same shapes."""

    method: str
    rank: int
    target_modules: tuple[str, ...]
    text_encoder: bool
    dropout: float

    @classmethod
    def of(cls, spec: AdapterSpec) -> "Kind":
        return cls(spec.method, spec.rank, spec.target_modules, spec.text_encoder, spec.dropout)


def alpha(spec: AdapterSpec) -> float:
    return spec.alpha if spec.alpha is not None else float(spec.rank)


def scaling(spec: AdapterSpec) -> float:
    """What the update is multiplied by: alpha / rank; rsLoRA's alpha / sqrt(rank) (Kalajdzievski 2023)."""
    return alpha(spec) / (math.sqrt(spec.rank) if spec.method == "rslora" else spec.rank)


@dataclass(frozen=True)
class Piece:
    """One tensor of the adapter: `shape` numbers from `offset` on."""

    module: str  # unet.… or text_encoder.…
    role: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        return f"{self.module}.{ROLES[self.role]}"


@dataclass(frozen=True)
class Layout:
    """The pieces of an adapter, in the order of the model's modules."""

    pieces: tuple[Piece, ...]

    @cached_property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def split(self, rows: Tensor) -> Iterator[tuple[Piece, Tensor]]:
        """Views of (k, size) rows as the pieces' (k, *shape)."""
        parts = rows.split([piece.size for piece in self.pieces], dim=1)
        for piece, part in zip(self.pieces, parts, strict=True):
            yield piece, part.unflatten(1, piece.shape)

    def named(self, row: Tensor) -> dict[str, Tensor]:
        """The tensors of one (size,) row by canonical name."""
        return {piece.name: part[0].contiguous() for piece, part in self.split(row[None])}

    def row(self, named: Mapping[str, Tensor]) -> Tensor:
        """The (size,) row of named tensors. Raises RunFailed where they are another adapter's."""
        expected = {piece.name: piece.shape for piece in self.pieces}
        found = {name: tuple(tensor.shape) for name, tensor in named.items()}
        if found != expected:
            odd = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            there, wanted = found.get(odd[0], "missing"), expected.get(odd[0], "missing")
            message = (
                f"the checkpoint is of another adapter: {odd[0]} is {there} in it, but {wanted} by the spec; choose another output.uri"
            )
            raise RunFailed(message, reason="CHECKPOINT_OF_ANOTHER_ADAPTER")
        return torch.cat([named[piece.name].flatten() for piece in self.pieces])


def is_target(path: str, endings: Mapping[str, Sequence[str]]) -> bool:
    """Whether the layer at a canonical path is named by its part's endings, as PEFT matches them."""
    part, _, inner = path.partition(".")
    return any(inner == ending or inner.endswith(f".{ending}") for ending in endings.get(part, ()))


def layout(kind: Kind, modules: Mapping[str, Layer]) -> Layout:
    """The layout of an adapter on these modules, by canonical path."""
    pieces: list[Piece] = []
    offset = 0
    for path, module in modules.items():
        for role, shape in _shapes(kind, module).items():
            pieces.append(Piece(path, role, shape, offset))
            offset += pieces[-1].size
    return Layout(tuple(pieces))


def initial_row(where: Layout, key: Key, modules: Mapping[str, Layer]) -> Tensor:
    """The (size,) row that training begins with, keyed: A as Kaiming-uniform (PEFT's own rule), B zero, DoRA's magnitude the
    base's own, so that step 0 is the base."""
    row = torch.zeros(where.size)
    for piece in where.pieces:
        part = row[piece.offset : piece.offset + piece.size]
        if piece.role == "A":
            bound = 1 / math.sqrt(math.prod(piece.shape[1:]))  # kaiming_uniform with a = sqrt(5)
            drawn = key.generator(Purpose.INIT, piece.name).uniform(-bound, bound, piece.size)
            part.copy_(torch.from_numpy(drawn))
        elif piece.role == "magnitude":
            part.copy_(modules[piece.module].weight.detach().float().flatten(1).norm(dim=1))
    return row


def _shapes(kind: Kind, module: Layer) -> dict[str, tuple[int, ...]]:
    outputs, *inputs = module.weight.shape
    shapes: dict[str, tuple[int, ...]] = {"A": (kind.rank, *inputs), "B": (outputs, kind.rank, *[1] * (len(inputs) - 1))}
    return {**shapes, "magnitude": (outputs,)} if kind.method == "dora" else shapes
