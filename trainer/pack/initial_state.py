"""What a style's adapter begins with: the weights that its key draws, those of an adapter that it goes on from, or its checkpoint's
weights and the optimizer's state."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from lorafleet.catalog.method import INITIALIZATION
from lorafleet.errors import RunFailed
from trainer import artifact_merge
from trainer.adapters import beginnings, start, tokens
from trainer.adapters.layout import VECTORS, Layout, initial_row
from trainer.adapters.methods import METHODS
from trainer.adapters.model import PackModel
from trainer.checkpoint import Checkpoint
from trainer.pack.member import Member


class Row(NamedTuple):
    weights: Tensor  # (size,)
    state: Mapping[str, Tensor]  # the optimizer's, by its keys
    began: Tensor | None = None  # (size,): the weights that are subtracted


def started(model: PackModel, member: Member) -> dict[str, Tensor]:
    """What the spec begins with that no key draws, by canonical name: the adapter that it goes on from, or sides that are subtracted."""
    given = member.spec.adapter.start
    layers, where = model.layers_of(member.kind), model.layout_of(member.kind)
    artifact_merge.check(member.style, layers)
    if given is None:
        return beginnings.found(where, layers, member.spec.adapter, member.style.key)
    return start.named(given, member.spec.family.name, member.spec.adapter, where, layers, job=member.job)


def first_row(model: PackModel, member: Member, saved: Checkpoint | None, given: Mapping[str, Tensor] | None = None) -> Row:
    """Made before there is a bank for it: what cannot be a row must not stop the others'. `given`: as of `started`."""
    layers, where = model.layers_of(member.kind), model.layout_of(member.kind)
    if saved is None:
        initialization = INITIALIZATION if member.kind.subtracts else member.spec.adapter.initialization
        drawn = initial_row(where, METHODS.get(member.kind.method), member.style.key, layers, initialization)
        row = _with({**(given or {}), **_first_vectors(model, member)}, where, drawn)
        return Row(row, {}, row.clone() if member.kind.subtracts else None)
    state = _state(where, saved)
    began = state.pop(beginnings.KEY, None)
    if member.kind.subtracts and began is None:
        message = "the checkpoint is of another adapter: it lacks what the adapter began with; choose another output.uri"
        raise RunFailed(message, reason="CHECKPOINT_OF_ANOTHER_ADAPTER")
    return Row(where.row(saved.weights), state, began)


def _first_vectors(model: PackModel, member: Member) -> dict[str, Tensor]:
    """Those of its new tokens, by canonical name."""
    found: dict[str, Tensor] = {}
    for path, embedding in model.embeddings_of(member.kind).items():
        (tokenizer,) = model.family.facts.tokenizers_of([path.partition(".")[0]])
        asked, name = member.spec.textual_inversion.tokens, f"{path}.{VECTORS}"
        found[name] = tokens.initial_vectors(asked, model.parts[tokenizer.name], embedding, member.style.key, name)
    return found


def _with(given: Mapping[str, Tensor], where: Layout, row: Tensor) -> Tensor:
    """The row with what is given; numbers that are none stay as they are drawn."""
    for piece in where.pieces:
        if piece.name in given:
            part, values = row[piece.offset : piece.offset + piece.size], given[piece.name].flatten()
            part.copy_(values.where(values.isfinite(), part))
    return row


def _state(where: Layout, saved: Checkpoint) -> dict[str, Tensor]:
    """What was kept of each number is saved by the names of tensors, anything else under its key."""
    named: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in saved.moments.items():
        key, _, parameter = name.partition(".")
        named[key][parameter] = tensor
    return {key: tensors[""] if "" in tensors else where.row(tensors) for key, tensors in named.items()}
