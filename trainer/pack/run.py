"""A pack from its cached latents to its committed artifacts, on one worker of the group. Reads as the README tells it.

Every style has its own state (`Member`) and its own row of the stacked adapters (`adapters.bank`). A failure of one style
ends that style only. From `train` to the network: `_train_step`, `Engine`, `PackModel.forward`, the family's `predict`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import RunFailed
from trainer import checkpoint, eviction, run_log, style_isolation
from trainer.adapters.bank import ActiveSlots
from trainer.adapters.model import PackModel
from trainer.compilation.shapes import on_device
from trainer.engine import Engine
from trainer.frozen_base import FrozenBase
from trainer.group import Group
from trainer.pack import evaluation, saving
from trainer.pack.ahead import Ahead, Drawn, Seat, Staged, work
from trainer.pack.batch import PackBatch, assemble
from trainer.pack.initial_state import Row, first_row, started
from trainer.pack.member import Member
from trainer.pack.passes import PaddingRules, Pass, Work, padding_rules, passes
from trainer.pack.samples import Samples
from trainer.pack.state import PackState
from trainer.pack.unread import Launched, Part, RowLosses, Stepped, Unread
from trainer.prepare import latent_cache
from trainer.prepare.latent_cache import Encoded
from trainer.prepare.pack import prepare_pack
from trainer.prepare.style import PreparedStyle
from trainer.report import Reporter
from trainer.storage import Folder

log = logging.getLogger("lorafleet.pack")


class PackRun:
    """Trains a pack. Every method is collective unless it says otherwise."""

    def __init__(
        self,
        styles: Sequence[PreparedStyle],
        base: FrozenBase,
        cache_folder: Folder,
        group: Group,
        reporter: Reporter | None,
        *,
        batch_invariant: bool,
    ) -> None:
        """`batch_invariant`: passes are padded so that a style's numbers are the same bit for bit in any pack."""
        self.base, self.group, self.reporter, self.batch_invariant = base, group, reporter, batch_invariant
        self.cache_folder = cache_folder
        self.spec = styles[0].spec  # only fields that all styles of a pack share are read from it
        self.must_leave = False  # a pod of the run is about to be killed: nothing more is begun here
        self.samples = Samples()
        self.unread = Unread(base.device)
        self.ahead = Ahead(base.family, base.device, self._draws, self._planned)
        self._rows: dict[str, Row] = {}  # that the jobs' adapters begin with, until there is an engine
        compiles, said = on_device(self.spec.training.compile, base.device.type)
        if said:
            log.info("%s", said)
        self.pack = PackState(base, group, reporter, recomputes=self.spec.training.gradient_checkpointing, compiles=compiles)
        self._take_in(styles)

    def train(self) -> None:
        """Trains every style to its end: its last step, a requested stop, or its own failure."""
        try:
            self._train()
        finally:
            self.ahead.close()
        self.pack.strip()

    def _train(self) -> None:
        for member in self.members:
            self._only_its_own(member, "beginning to train", self._begin)
        while self.members:
            self._stop_requested()
            self._take_in_joiners()
            if self.members:
                self._train_step()

    @property
    def model(self) -> PackModel:
        return self.pack.model

    @property
    def members(self) -> list[Member]:
        return self.pack.members

    @property
    def engine(self) -> Engine:
        return self.pack.engine

    # A step

    def _train_step(self) -> None:
        began_s = time.perf_counter()
        members, staged = self._ready_for_a_step()
        if not members:
            return
        self.ahead.begin(self._seats(members, steps_later=1))
        self.samples.forget_pipeline()  # what only drawing needs is in memory from one step to the next at most
        losses, plan = list[RowLosses](), self._passes(members) if staged is None else staged.plan
        for number, each in enumerate(plan):
            batch = None if staged is None else staged.batch(number, self.base.device)
            batch = batch or assemble(each, members, self.base.family, self.base.device)
            predicted = self.engine(self._active(each, batch), batch.noisy, batch.times, batch.conditioning, batch.captions)
            row_losses = batch.losses(predicted, members)
            self.engine.backward((row_losses * batch.shares).sum(), last=each is plan[-1])
            losses.append(RowLosses(batch.styles, row_losses.detach()))
        finite = self.engine.step([[member.update for member in same_kind] for same_kind in self.pack.by_kind.values()])
        self.unread.add(Launched(parts=self._parts(members), passes=losses, finite=finite, began_s=began_s))
        for member in members:
            member.launched()
        if self.unread.is_full or any(member.waits_for_its_loss or self._is_anything_due(member) for member in members):
            self._read()  # whoever went wrong leaves: what is due is of those that are well
        for member in self.members:
            if self._is_anything_due(member):
                self._only_its_own(member, "doing what is due after a step", self._do_what_is_due)

    def _ready_for_a_step(self) -> tuple[list[Member], Staged | None]:
        """The members that have their part of the step, and what was made of it ahead; whose could not be drawn have left."""
        members = self.members
        staged = self.ahead.take(self._seats(members))
        rank, world_size = self.group.rank, self.group.world_size
        draw = [
            partial(member.draw, rank=rank, world_size=world_size) if staged is None else partial(staged.give, member) for member in members
        ]
        self._each_its_own(members, "drawing its pictures", draw)
        return self.members, staged if self.members == members else None

    def _draws(self, member: Member, step: int) -> Drawn:
        return member.draws(step, rank=self.group.rank, world_size=self.group.world_size)

    def _seats(self, members: Sequence[Member], *, steps_later: int = 0) -> list[Seat]:
        return [Seat(member, member.step + steps_later, *self.pack.place(member)) for member in members]

    def _passes(self, members: Sequence[Member]) -> list[Pass]:
        return self._planned([work(number, seat, seat.member.drawn) for number, seat in enumerate(self._seats(members))])

    def _planned(self, given: Sequence[Work]) -> list[Pass]:
        rules = padding_rules(self.base.device.type, torch.get_num_threads()) if self.batch_invariant else PaddingRules()
        return passes(given, rules)

    def _active(self, each: Pass, batch: PackBatch) -> list[ActiveSlots]:
        """Which slots have which rows of the pass."""
        start = 0
        active: list[ActiveSlots] = []
        for slot_group, seeds, index in zip(each.slot_groups, batch.dropout_seeds, batch.slots, strict=True):
            bank = self.engine.banks[slot_group.bank]
            is_paired = slot_group.idle_slot is not None
            active.append(ActiveSlots(bank, slot_group.slots, start, slot_group.rows_each, seeds, index, is_paired=is_paired))
            start += slot_group.num_rows
        return active

    def _parts(self, members: Sequence[Member]) -> list[Part]:
        places = [self.pack.place(member) for member in members]
        return [
            Part(member=member, number=member.step + 1, bank=bank, slot=slot) for member, (bank, slot) in zip(members, places, strict=True)
        ]

    def _read(self) -> None:
        """Hears how the steps went that were launched since the last time; whoever went wrong in one leaves."""
        if steps := self.unread.read(self.group):
            self._each_its_own(list(steps), "recording a step", [partial(_record, member, its) for member, its in steps.items()])

    def _is_anything_due(self, member: Member) -> bool:
        """The same on every worker, at no cost."""
        return member.is_done or member.is_due(member.spec.validation.every_steps) or member.is_due(member.spec.checkpointing.every_steps)

    def _do_what_is_due(self, member: Member) -> None:
        last = member.spec.training.max_steps
        if member.is_due(member.spec.validation.every_steps) and member.step < last:
            self._evaluate(member)
            member.tell(phase="training")
        if member.is_due(member.spec.checkpointing.every_steps) or member.is_done:
            saving.save_checkpoint(self.pack, member)
        if member.is_done:
            self._finish(member)

    # One member

    def _begin(self, member: Member) -> None:
        if member.is_done:
            self._finish(member)
            return
        if member.step == 0:
            self._evaluate(member)
        member.tell(phase="training", step=member.step)

    def _evaluate(self, member: Member) -> None:
        member.tell(phase="evaluating")
        with self.pack.judged(member):
            member.evaluated(member.step, evaluation.held_out_loss(self.pack, member))
            if member.spec.validation.prompts:
                member.tell(phase="sampling")
                self.samples.draw(self.pack, member)

    def _finish(self, member: Member) -> None:
        if all(step != member.step for step, _ in member.held_out_losses):  # one that stops early has just been evaluated
            self._evaluate(member)
        saving.commit(self.pack, member)
        self._leave(member)

    # Taking in

    def _take_in(self, styles: Sequence[PreparedStyle]) -> None:
        """Encodes the styles, adds them to the pack and builds the engine. Styles already in the pack keep their state."""
        for member in self.members:
            self._only_its_own(member, "keeping its state", self._keep)
        encoded = self._encode(styles)
        if any(style.spec.trains_text for style, _ in encoded):
            self.pack.train_text()
        newcomers = [member for style, each in encoded if (member := self._member(style, each)) is not None]
        self.pack.seat([*self.members, *newcomers])
        if self.members:
            self._make_engine()

    def _encode(self, styles: Sequence[PreparedStyle]) -> list[tuple[PreparedStyle, Encoded]]:
        """Those that could be encoded; of the others it was reported. What only encoding needs is gone when this returns."""
        parts = self.base.for_encoding(self.spec.text_precision)  # each is loaded once, and only if anything needs encoding
        encoded: list[tuple[PreparedStyle, Encoded]] = []
        for style in styles:
            if self.reporter is not None:
                self.reporter.progress(style.job, phase="encoding")
            try:
                with style_isolation.only(style.job, f"encoding dataset.uri: {style.spec.dataset.uri}", self.group):
                    encoded.append((style, latent_cache.encode(style, self.cache_folder, self.base.family, parts, self.group)))
            except RunFailed as error:
                self._say_failed(style.job, error)
        return encoded

    def _member(self, style: PreparedStyle, encoded: Encoded) -> Member | None:
        """None: the style cannot train, which was reported."""
        try:
            with style_isolation.only(style.job, f"making its adapter on base_model.uri: {style.base.uri}", self.group):
                return self._made(style, encoded)
        except RunFailed as error:
            self._say_failed(style.job, error)
            return None

    def _made(self, style: PreparedStyle, encoded: Encoded) -> Member:
        with style_isolation.naming(f"output.uri: {style.output_uri}"):
            checkpoints = Folder(JobLayout(style.output_uri).checkpoints, within=style.output_uri)
            saved = self.group.on_first(partial(checkpoint.newest, checkpoints, job=style.job))
        objective = self.base.family.objective(self.base.parts, style.spec)
        member = Member(style, encoded, objective, saved, self.reporter)
        given = None if saved is not None else self.group.on_first(partial(started, self.model, member))
        self._rows[style.job] = first_row(self.model, member, saved, given)
        if saved is not None and self.reporter is not None:
            self.reporter.resumed(style.job, member.step)
        if self.group.rank == 0:
            member.open_metrics()
        return member

    def _keep(self, member: Member) -> None:
        self._rows[member.job] = first_row(self.model, member, saving.state_of(self.pack, member))

    def _make_engine(self) -> None:
        self.model.strip()
        self.samples.forget_pipeline()
        banks = [
            self.model.add_bank(kind, len(members), batch_invariant=self.batch_invariant) for kind, members in self.pack.by_kind.items()
        ]
        for bank, members in zip(banks, self.pack.by_kind.values(), strict=True):
            for member in members:
                row, asked = self._rows[member.job], member.spec
                bank.add_style(row.weights, bank.scaling_of(asked.adapter), row.began, asked.textual_inversion.tokens)
        self.model.train()
        self.pack.engine = Engine(self.model, self.spec, self.group, self.base.device)
        for number, members in enumerate(self.pack.by_kind.values()):
            for slot, member in enumerate(members):
                if moments := self._rows[member.job].state:
                    self.engine.load_moments(number, slot, moments)
        self._rows = {}
        place = (
            self.engine.zero_stage,
            self.group.rank,
            self.group.world_size,
            self.base.device,
            torch.get_num_threads(),
            len(self.members),
        )
        log.info("DeepSpeedEngine, ZeRO stage %d, rank %d of %d, on %s, %d threads, %d styles", *place)

    def _take_in_joiners(self) -> None:
        joining = self.group.agree(self._prepared_joiners())
        if joining:
            self._read()
            known = {member.job for member in self.members}
            self._take_in(joining)
            for member in self.members:
                if member.job not in known:
                    self._only_its_own(member, "beginning to train", self._begin)

    def _prepared_joiners(self) -> tuple[PreparedStyle, ...]:
        """Only on rank 0; nothing elsewhere."""
        waiting = self.reporter.joining() if self.reporter is not None else []
        return prepare_pack(waiting, self.cache_folder.uri, self.reporter) if waiting and self.reporter is not None else ()

    # Whose a failure is

    def _only_its_own(self, member: Member, doing: str, action: Callable[[Member], None]) -> None:
        """Runs a collective action whose failure, on any worker, ends this member only."""
        try:
            with style_isolation.only(member.job, doing, self.group, has_trained=member.step > 0, in_lock_step=self._is_in_lock_step):
                action(member)
        except RunFailed as error:
            if self._is_in_lock_step and not self.group.has_agreed:
                raise  # it is alone in its pack
            self._lose(member, error)

    def _each_its_own(self, members: Sequence[Member], doing: str, actions: Sequence[Callable[[], None]]) -> None:
        """Runs an action of each member in which no worker waits for another, and hears once of all that failed."""
        failures: list[RunFailed | None] = [None] * len(members)
        for number, (member, action) in enumerate(zip(members, actions, strict=True)):
            try:
                with style_isolation.only(member.job, doing, has_trained=member.step > 0):
                    action()
            except RunFailed as error:
                failures[number] = error
        for member, error in zip(members, self.group.failures(failures), strict=True):
            if error is not None:
                self._lose(member, error)

    @property
    def _is_in_lock_step(self) -> bool:
        """Whether DeepSpeed's workers wait for each other also outside of a step."""
        return self.engine.zero_stage > 0 and self.group.world_size > 1

    def _lose(self, member: Member, error: RunFailed) -> None:
        was_here = member in self.members
        self._read()  # what was launched before comes first
        if was_here and member not in self.members:
            return
        self._leave(member)
        self._say_failed(member.job, error, member.step)

    # Leaving

    def _stop_requested(self) -> None:
        jobs = [member.job for member in self.members if self.reporter is not None and self.reporter.must_stop(member.job)]
        stopping, must_read = self.group.agree((jobs, self.unread.is_old))
        if eviction.is_heard() and self.group.any(eviction.is_told()):
            log.warning("a pod of this run must go: every style saves its work and stops")
            self.must_leave, stopping = True, [member.job for member in self.members]
        if stopping or must_read:
            self._read()
        for member in [member for member in self.members if member.job in stopping]:
            self._only_its_own(member, "stopping", self._stop)

    def _stop(self, member: Member) -> None:
        if member.step:
            saving.save_checkpoint(self.pack, member)
        self._leave(member)
        log.info("stopped after step %d, on request", member.step)
        if self.reporter is not None:
            self.reporter.stopped(member.job, member.step)

    def _leave(self, member: Member) -> None:
        """Frees the member's row. The others' rows, and so their numbers, stay what they were."""
        if member not in self.members:
            return  # it failed as it left
        self.pack.remove(member)
        try:
            with style_isolation.only(member.job, "closing its curves"):
                member.close_metrics()
        except RunFailed as error:
            log.warning("%s", error)

    def _say_failed(self, job: str, error: RunFailed, step: int = 0) -> None:
        with run_log.about(job):
            log.error("%s", error)
        if self.reporter is not None:
            self.reporter.failed(job, error, step)


def _record(member: Member, steps: Sequence[Stepped]) -> None:
    for step in steps:
        loss = step.loss / member.spec.global_batch_size
        member.stepped(step.number, loss, gradient_is_finite=step.gradient_is_finite, duration_s=step.duration_s)
