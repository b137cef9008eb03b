"""What a style's adapter begins with: the weights that its key draws, or its checkpoint's weights and moments."""

from collections import defaultdict

from torch import Tensor

from trainer.adapters.layout import Layout, initial_row, layout
from trainer.adapters.pack import PackModel
from trainer.checkpoint import Checkpoint
from trainer.member import Member

Row = tuple[Tensor, dict[str, Tensor]]  # weights, and AdamW's moments by their keys; each (size,)


def first_row(model: PackModel, member: Member, saved: Checkpoint | None) -> Row:
    """Made before there is a bank for it: what cannot be a row must not stop the others'."""
    layers = model.layers_of(member.kind)
    where = layout(member.kind, layers)
    if saved is None:
        return initial_row(where, member.style.key, layers), {}
    return where.row(saved.weights), _moment_rows(where, saved)


def _moment_rows(where: Layout, saved: Checkpoint) -> dict[str, Tensor]:
    named: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in saved.moments.items():
        key, _, parameter = name.partition(".")
        named[key][parameter] = tensor
    return {key: where.row(tensors) for key, tensors in named.items()}
