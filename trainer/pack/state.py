"""A pack as it is now: its styles in their slots, the model and the engine that they share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from trainer.adapters.bank import ActiveSlots
from trainer.adapters.layout import Kind
from trainer.adapters.model import PackModel
from trainer.compilation.choice import compiled
from trainer.compilation.shapes import Chosen
from trainer.engine import Engine
from trainer.frozen_base import FrozenBase
from trainer.group import Group
from trainer.pack.member import Member
from trainer.report import Reporter


class PackState:
    """What evaluation, saving and the run itself work on. `engine` is there once styles are."""

    engine: Engine

    def __init__(self, base: FrozenBase, group: Group, reporter: Reporter | None, *, recomputes: bool, compiles: Chosen = "none") -> None:
        self.base, self.group, self.reporter = base, group, reporter
        self._trains_text, self._recomputes = False, recomputes
        self._compiles: Chosen = compiles
        self._model: PackModel | None = None
        self.by_kind: dict[Kind, list[Member]] = {}  # in the order of the banks; a member's index in its list is its slot

    @property
    def model(self) -> PackModel:
        """Made when it is first asked for: large text encoders are to be gone before its denoiser is loaded."""
        if self._model is None:
            base = self.base
            computes = base.precision.computes
            self._model = PackModel(base.family, base.parts, trains_text=self._trains_text, computes=computes, recomputes=self._recomputes)
            self._model.compiled = compiled(self._compiles, base.parts[base.family.facts.denoiser.name])
        return self._model

    def train_text(self) -> None:
        """From now on there are styles that train text encoders. Those whose rows are not kept elsewhere are lost with the model."""
        if not self._trains_text:
            self.strip()
            self._model, self._trains_text = None, True
            self.base.load(trains_text=True)

    def strip(self) -> None:
        """Leaves the frozen parts as they were."""
        if self._model is not None:
            self._model.leave()

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def members(self) -> list[Member]:
        return [member for members in self.by_kind.values() for member in members]

    def seat(self, members: Sequence[Member]) -> None:
        """These are its members from now on; each kind's get its slots in their order."""
        self.by_kind = {}
        for member in members:
            self.by_kind.setdefault(member.kind, []).append(member)

    def place(self, member: Member) -> tuple[int, int]:
        """Number of the member's bank, and its slot."""
        return list(self.by_kind).index(member.kind), self.by_kind[member.kind].index(member)

    def alone(self, member: Member) -> list[ActiveSlots]:
        """Its slot, with the whole batch."""
        bank, slot = self.place(member)
        return [ActiveSlots(self.engine.banks[bank], [slot])]

    def judged(self, member: Member) -> AbstractContextManager[None]:
        """Meanwhile its weights are those that it is drawn with and exported."""
        return self.engine.judged(*self.place(member), member.update)

    def remove(self, member: Member) -> None:
        """Frees the member's row. The others' rows, and so their numbers, stay what they were."""
        bank, slot = self.place(member)
        same_kind = self.by_kind[member.kind]
        if len(self.members) > 1:
            self.engine.free(bank, slot)
        same_kind[slot] = same_kind[-1]
        same_kind.pop()

    def must_stop(self, member: Member) -> bool:
        """Whether this worker was told that the member must stop. Raises where another attempt has taken over."""
        return self.reporter is not None and self.reporter.must_stop(member.job)
