"""The adapters of a pass's rows, stacked: on each layer, rows whose adapters have the same shapes there are computed together.

A row may have several adapters: it is then in several groups of a layer, one after the other, and what they add is summed. What is not
additive, DoRA and OFT, adds what it would change of the base alone, as PEFT's and LyCORIS' sums of adapters have it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from trainer.adapters.bank import MIN_SLOTS
from trainer.adapters.layers import Adapted
from trainer.adapters.methods import METHODS
from trainer.adapters.methods.protocol import AdapterMethod, Slots
from trainer.generation.adapter import ADDED, Adapter, Term, with_weight

Uses = Sequence[tuple[Adapter, float]]  # the adapters of one row, with their weights


@dataclass(frozen=True)
class Group:
    """Rows of one layer. Where one would be alone in a pass of several it is there twice: a lone matrix is multiplied in another way
    (adapters.bank)."""

    method: AdapterMethod
    weights: Mapping[str, Tensor]  # by role, (rows, *shape)
    scaling: Tensor  # (rows,)
    shares: Tensor | None  # of what it changes that is added, (rows,); None: all of it, and it is all that its rows have
    rows: Tensor | None  # their numbers; None: all of the pass, in order
    num_rows: int  # without the one that is there twice

    def changed(self, layer: Adapted, x: Tensor, frozen: Tensor, out: Tensor) -> Tensor:
        """`out`, (rows of the pass, ...), with this added to its rows. `frozen`: what the base alone gives for x."""
        x, before, base = (each if self.rows is None else each[self.rows] for each in (x, out, frozen))
        after = self._after(layer, x, base, before)
        return after if self.rows is None else out.index_copy(0, self.rows[: self.num_rows], after[: self.num_rows])

    def _after(self, layer: Adapted, x: Tensor, base: Tensor, before: Tensor) -> Tensor:
        slots = Slots(self.weights, self.scaling, is_dropped=False)
        if self.shares is None:
            return self.method.outputs(layer, x, before, slots)
        added = self.method.outputs(layer, x, base, slots) - base
        return before + added * self.shares.view(-1, *[1] * (added.ndim - 1))


class Stacks:
    """What the layers of a base add in a pass. A denoiser may get the rows of the pass more than once, such as without their prompts."""

    def __init__(self, rows: Sequence[Uses], device: torch.device) -> None:
        """`rows`: what each row of the pass is drawn with."""
        self._rows, self._device = rows, device
        self.paths = frozenset(path for uses in rows for adapter, _ in uses for path in adapter.terms)
        self._groups: dict[tuple[str, int], Sequence[Group]] = {}

    def outputs(self, layer: Adapted, path: str, x: Tensor) -> Tensor:
        frozen = layer.base(x)
        if path not in self.paths:
            return frozen
        out = frozen
        # Of one row whatever there is is the row's, in whatever shape it comes.
        for group in self._of(path, 1 if len(self._rows) == 1 else len(x) // len(self._rows)):
            out = group.changed(layer, x, frozen, out)
        return out

    def _of(self, path: str, times: int) -> Sequence[Group]:
        """Where the pass' rows come that often: all at once, for pieces would be put together by a copy of each layer's outputs."""
        if (path, times) not in self._groups:
            self._groups[path, times] = list(_groups(path, [*self._rows] * times, self._device))
        return self._groups[path, times]


NOTHING = Stacks((), torch.device("cpu"))


def stacked(rows: Sequence[Uses], device: torch.device) -> Stacks:
    return Stacks(rows, device)


def _groups(path: str, rows: Sequence[Uses], device: torch.device) -> Iterator[Group]:
    terms = [[(adapter.terms[path], weight) for adapter, weight in uses if path in adapter.terms] for uses in rows]
    for turn in range(max(map(len, terms))):
        having = [(row, *each[turn], len(each) > 1) for row, each in enumerate(terms) if turn < len(each)]
        having.sort(key=lambda one: (str(_alike(one)), one[0]))
        for _, its in groupby(having, key=_alike):
            yield _group(list(its), len(rows), device)


_Having = tuple[int, Term, float, bool]  # row, what it has, at what weight, whether it has more


def _alike(one: _Having) -> tuple[object, ...]:
    _, term, weight, has_more = one
    return term.method, term.shapes, _is_shared(term, weight, has_more)


def _is_shared(term: Term, weight: float, has_more: bool) -> bool:
    """Whether it is added as the difference from the base."""
    return term.method not in ADDED and (has_more or (term.method == "oft" and weight != 1.0))


def _group(having: Sequence[_Having], num_rows: int, device: torch.device) -> Group:
    first = having[0]
    its = having if len(having) >= min(MIN_SLOTS, num_rows) else [first, first]
    terms = [with_weight(term, weight) for _, term, weight, _ in its]
    shares = torch.tensor([weight if term.method == "oft" else 1.0 for _, term, weight, _ in its])
    is_all = len(having) == num_rows
    return Group(
        method=METHODS.get(first[1].method),
        weights={role: torch.stack([term.tensors[role] for term in terms]).to(device) for role in first[1].tensors},
        scaling=torch.tensor([term.scaling for term in terms], device=device),
        shares=shares.to(device) if _is_shared(*first[1:]) else None,
        rows=None if is_all else torch.tensor([row for row, *_ in its], device=device),
        num_rows=len(having),
    )
