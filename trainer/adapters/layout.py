"""One adapter as one row of numbers: which module's tensor lies where in it, and how it begins. Knows no model at work.

Tensors have one canonical name wherever they go (checkpoint, export): the part, the module's path in it, and the end that the
method's facts give to the role, such as `unet.<module>.lora_A.weight`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor, nn

from lorafleet import spec_overrides as overrides
from lorafleet.catalog import METHODS
from lorafleet.catalog.method import INITIALIZATION
from lorafleet.errors import RunFailed
from lorafleet.spec import AdapterSpec, Spec
from lorafleet.spec_overrides import OverrideSpec
from trainer.adapters.inits import INITIALIZATIONS
from trainer.adapters.methods.protocol import AdapterMethod
from trainer.keyed import Key, Purpose

Layer = nn.Linear | nn.Conv2d
VECTORS = "new_tokens"  # the role, and the end of the name, of new tokens' vectors
NO_EMBEDDINGS: Mapping[str, nn.Embedding] = MappingProxyType({})


@dataclass(frozen=True)
class Kind:
    """What adapters must have in common to be stacked and stepped together: their tensors then have the same shapes."""

    method: str
    rank: int
    target_modules: tuple[str, ...]
    text_encoder: bool
    dropout: float
    optimizer: str
    keeps_average: bool = False
    factor: int | None = None
    min_rank: int = 1  # of methods whose ranks go by noise
    raises_rates: bool = False  # of the roles of which its method says so (LoRA+)
    overrides: tuple[OverrideSpec, ...] = ()  # without what a row may have of its own
    subtracts: bool = False  # whether what they began with is subtracted again (adapters.beginnings)
    num_vectors: int = 0  # of new tokens, in each text encoder
    has_layers: bool = True  # False: the new tokens are all that is trained
    has_token_rate: bool = False  # of its own

    @property
    def trains_text(self) -> bool:
        return self.text_encoder or self.num_vectors > 0

    def rank_at(self, path: str) -> int:
        return overrides.values_at(self.overrides, path, ["rank"]).get("rank", self.rank)

    def dropout_at(self, path: str) -> float:
        return overrides.values_at(self.overrides, path, ["dropout"]).get("dropout", self.dropout)

    def group_of(self, path: str, *, is_raised: bool) -> int:
        """Number of a tensor's rate among those of the adapter, in the order of `optimizers.schedule.Rates`."""
        chain = overrides.rate_chains(self.overrides).index(overrides.rate_chain(self.overrides, path))
        return 2 * chain + is_raised if self.raises_rates else chain

    @property
    def token_group(self) -> int:
        """The same of the new tokens: the last."""
        return len(overrides.rate_chains(self.overrides)) * (2 if self.raises_rates else 1) if self.has_token_rate else 0

    @classmethod
    def of(cls, adapter: AdapterSpec, optimizer: str, *, keeps_average: bool = False, raises_rates: bool = False) -> "Kind":
        return cls(
            method=adapter.method,
            rank=adapter.rank,
            target_modules=adapter.target_modules,
            text_encoder=adapter.text_encoder,
            dropout=adapter.dropout,
            optimizer=optimizer,
            keeps_average=keeps_average,
            factor=adapter.factor,
            min_rank=adapter.min_rank or 1,
            raises_rates=raises_rates,
            overrides=tuple(map(_without_what_rows_have, adapter.overrides)),
            subtracts=adapter.initialization in METHODS.get(adapter.method).subtracted,
        )

    @classmethod
    def of_spec(cls, spec: Spec) -> "Kind":
        training = spec.training
        kind = cls.of(
            spec.adapter,
            training.optimizer,
            keeps_average=training.ema_decay is not None,
            raises_rates=training.lora_plus_ratio is not None,
        )
        inversion = spec.textual_inversion
        has_rate = spec.token_rate is not None
        return replace(kind, num_vectors=inversion.num_vectors, has_layers=not inversion.alone, has_token_rate=has_rate)


def _without_what_rows_have(override: OverrideSpec) -> OverrideSpec:
    """Alphas and rates may differ from row to row; that tensors have a rate of their own may not."""
    rates = {**dict.fromkeys(overrides.RATE_FIELDS), "learning_rate": 1.0 if override.has_rate else None}
    return override.model_copy(update={"alpha": None, **rates})


def alpha(spec: AdapterSpec) -> float:
    return spec.alpha if spec.alpha is not None else float(spec.rank)


def scaling(spec: AdapterSpec) -> float:
    """What the update is multiplied by, as its method says."""
    return METHODS.get(spec.method).scaling(alpha(spec), spec.rank)


@dataclass(frozen=True)
class Piece:
    """One tensor of the adapter: `shape` numbers from `offset` on."""

    module: str  # canonical path: unet.…, text_encoder.…
    role: str
    name: str  # of the tensor, canonical
    shape: tuple[int, ...]
    offset: int
    group: int = 0  # number of its rate among those of the adapter

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The pieces of an adapter, in the order of the model's modules."""

    pieces: tuple[Piece, ...]

    @cached_property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    @property
    def by_module(self) -> dict[str, list[Piece]]:
        found: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            found.setdefault(piece.module, []).append(piece)
        return found

    @cached_property
    def modules(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(piece.module for piece in self.pieces))

    def split(self, rows: Tensor) -> Iterator[tuple[Piece, Tensor]]:
        """Views of (k, size) rows as the pieces' (k, *shape)."""
        parts = torch.split_with_sizes(rows, [piece.size for piece in self.pieces], dim=1)
        for piece, part in zip(self.pieces, parts, strict=True):
            yield piece, torch.unflatten(part, 1, piece.shape)

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


def layout(kind: Kind, modules: Mapping[str, Layer], embeddings: Mapping[str, nn.Embedding] = NO_EMBEDDINGS) -> Layout:
    """The layout of an adapter on these modules, and of new tokens beside these embeddings, by canonical path."""
    facts = METHODS.get(kind.method).cut_by(kind.factor)
    pieces: list[Piece] = []
    offset = 0
    for path, module in modules.items():
        for role, shape in facts.tensors(kind.rank_at(path), weight_shape(module)).items():
            group = kind.group_of(path, is_raised=role in facts.raised_roles)
            pieces.append(Piece(path, role, f"{path}.{facts.names[role]}", shape, offset, group))
            offset += pieces[-1].size
    for path, embedding in embeddings.items():
        pieces.append(Piece(path, VECTORS, f"{path}.{VECTORS}", (kind.num_vectors, embedding.embedding_dim), offset, kind.token_group))
        offset += pieces[-1].size
    return Layout(tuple(pieces))


def weight_shape(module: Layer) -> tuple[int, ...]:
    """Of a layer's weight as it was before it was quantised."""
    return (module.out_features, module.in_features) if isinstance(module, nn.Linear) else tuple(module.weight.shape)


def initial_row(
    where: Layout, method: AdapterMethod, key: Key, modules: Mapping[str, Layer], initialization: str = INITIALIZATION
) -> Tensor:
    """The (size,) row that training begins with: what the method says, or the initialization; draws are keyed by names."""
    row = torch.zeros(where.size)
    for module, pieces in where.by_module.items():
        if module not in modules:
            continue  # new tokens: adapters.tokens
        begin, draws = INITIALIZATIONS[initialization], key.generator(Purpose.INIT, module)
        given = begin({piece.role: piece.shape for piece in pieces}, draws)
        for piece in pieces:
            generator = key.generator(Purpose.INIT, piece.name)
            values = given.get(piece.role)
            if values is None:
                values = method.initial(piece.role, piece.shape, modules[module].weight, generator)
            if values is not None:
                row[piece.offset : piece.offset + piece.size].copy_(values.flatten())
    return row
