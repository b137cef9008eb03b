"""What a style's adapter begins with: the weights that its key draws, those of an adapter that it goes on from, or its checkpoint's
weights and the optimizer's state."""

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

from trainer.adapters import start
from trainer.adapters.layout import Layout, initial_row, layout
from trainer.adapters.methods import METHODS
from trainer.adapters.model import PackModel
from trainer.checkpoint import Checkpoint
from trainer.pack.member import Member

Row = tuple[Tensor, dict[str, Tensor]]  # weights, (size,), and the optimizer's state by its keys


def started(model: PackModel, member: Member) -> dict[str, Tensor]:
    """What the adapter that the spec goes on from has for its row, by canonical name; nothing where it goes on from none."""
    given = member.spec.adapter.start
    if given is None:
        return {}
    layers = model.layers_of(member.kind)
    where = layout(member.kind, layers)
    return start.named(given, member.spec.family.name, member.spec.adapter, where, layers, job=member.job)


def first_row(model: PackModel, member: Member, saved: Checkpoint | None, given: Mapping[str, Tensor] | None = None) -> Row:
    """Made before there is a bank for it: what cannot be a row must not stop the others'. `given`: as of `started`."""
    layers = model.layers_of(member.kind)
    where = layout(member.kind, layers)
    if saved is None:
        method, adapter = METHODS.get(member.kind.method), member.spec.adapter
        return _with(given or {}, where, initial_row(where, method, member.style.key, layers, adapter.initialization)), {}
    return where.row(saved.weights), _state(where, saved)


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
