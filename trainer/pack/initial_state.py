"""What a style's adapter begins with: the weights that its key draws, or its checkpoint's weights and the optimizer's state."""

from collections import defaultdict

from torch import Tensor

from trainer.adapters.layout import Layout, initial_row, layout
from trainer.adapters.methods import METHODS
from trainer.adapters.model import PackModel
from trainer.checkpoint import Checkpoint
from trainer.pack.member import Member

Row = tuple[Tensor, dict[str, Tensor]]  # weights, (size,), and the optimizer's state by its keys


def first_row(model: PackModel, member: Member, saved: Checkpoint | None) -> Row:
    """Made before there is a bank for it: what cannot be a row must not stop the others'."""
    layers = model.layers_of(member.kind)
    where = layout(member.kind, layers)
    if saved is None:
        method, adapter = METHODS.get(member.kind.method), member.spec.adapter
        return initial_row(where, method, member.style.key, layers, adapter.initialization), {}
    return where.row(saved.weights), _state(where, saved)


def _state(where: Layout, saved: Checkpoint) -> dict[str, Tensor]:
    """What was kept of each number is saved by the names of tensors, anything else under its key."""
    named: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in saved.moments.items():
        key, _, parameter = name.partition(".")
        named[key][parameter] = tensor
    return {key: tensors[""] if "" in tensors else where.row(tensors) for key, tensors in named.items()}
