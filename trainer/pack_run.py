"""A pack from its cached latents to its committed artifacts, on one worker of the group. Reads as the README tells it.

Every style has its own state (`Member`) and its own row of the stacked adapters (`adapters.pack`). A failure of one style
ends that style only.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import RunFailed
from trainer import artifact, checkpoint, evaluate, latent_cache, leaving, one_style, run_log
from trainer.adapters.layout import Kind, scaling
from trainer.adapters.pack import ActiveSlots, PackModel, padding_rules
from trainer.batch import PackBatch, assemble
from trainer.beginning import Row, first_row
from trainer.checkpoint import Checkpoint
from trainer.engine import Engine
from trainer.frozen_base import FrozenBase
from trainer.group import Group
from trainer.member import Member
from trainer.passes import PaddingRules, Pass, Work, passes
from trainer.prepare import PreparedStyle
from trainer.preparing import prepare_pack
from trainer.report import Reporter
from trainer.storage import Folder
from trainer.tracing import span

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
        self.device = base.device
        self.spec = styles[0].spec  # only fields that all styles of a pack share are read from it
        self.by_kind: dict[Kind, list[Member]] = {}  # in the order of the banks; a member's index in its list is its slot
        self.must_leave = False  # a pod of the run is about to be killed: nothing more is begun here
        self._pipeline: Any = None
        self._rows: dict[str, Row] = {}  # that the jobs' adapters begin with, until there is an engine
        self._first_pictures: dict[tuple[object, ...], list[bytes]] = {}
        text_encoder = base.text_encoder if self.spec.adapter.text_encoder else None
        self.model = PackModel(base.family, base.denoiser, text_encoder, bf16=self.spec.training.precision == "bf16")
        self._take_in(styles)

    def train(self) -> None:
        """Trains every style to its end: its last step, a requested stop, or its own failure."""
        for member in self.members:
            self._only_its_own(member, "beginning to train", self._begin)
        while self.members:
            self._stop_requested()
            self._take_in_joiners()
            if self.members:
                self._train_step()
        self.model.strip()

    @property
    def members(self) -> list[Member]:
        return [member for members in self.by_kind.values() for member in members]

    # Taking in

    def _take_in(self, styles: Sequence[PreparedStyle]) -> None:
        """Encodes the styles, adds them to the pack and builds the engine. Styles already in the pack keep their state."""
        for member in self.members:
            self._only_its_own(member, "keeping its state", self._keep)
        vae = cache(self.base.load_vae)  # loaded once, and only if anything needs encoding
        newcomers = [member for style in styles if (member := self._member(style, vae)) is not None]
        everybody = [*self.members, *newcomers]
        self.by_kind = {}
        for member in everybody:
            self.by_kind.setdefault(member.kind, []).append(member)
        if everybody:
            self._make_engine()

    def _member(self, style: PreparedStyle, vae: latent_cache.Lazy) -> Member | None:
        """None: the style cannot train, which was reported."""
        try:
            with one_style.only(style.job, f"encoding dataset.uri: {style.spec.dataset.uri}", self.group):
                return self._encoded(style, vae)
        except RunFailed as error:
            self._say_failed(style.job, error)
            return None

    def _encoded(self, style: PreparedStyle, vae: latent_cache.Lazy) -> Member:
        if self.reporter is not None:
            self.reporter.progress(style.job, phase="encoding")
        encoded = latent_cache.encode(
            style, self.cache_folder, self.base.family, vae, lambda: self.base.text_encoder, lambda: self.base.tokenizer, self.group
        )
        with one_style.naming(f"output.uri: {style.output_uri}"):
            checkpoints = Folder(JobLayout(style.output_uri).checkpoints, within=style.output_uri)
            saved = self.group.on_first(partial(checkpoint.newest, checkpoints, job=style.job))
        member = Member(style, encoded, saved, self.reporter)
        self._rows[style.job] = first_row(self.model, member, saved)
        if saved is not None and self.reporter is not None:
            self.reporter.resumed(style.job, member.step)
        if self.group.rank == 0:
            member.open_metrics()
        return member

    def _keep(self, member: Member) -> None:
        self._rows[member.job] = first_row(self.model, member, self._checkpoint(member))

    def _make_engine(self) -> None:
        self.model.strip()
        self._pipeline = None
        banks = [self.model.add_bank(kind, len(members), batch_invariant=self.batch_invariant) for kind, members in self.by_kind.items()]
        for bank, members in zip(banks, self.by_kind.values(), strict=True):
            for member in members:
                bank.add_style(self._rows[member.job][0], scaling(member.spec.adapter))
        self.model.train()
        self.engine = Engine(self.model, self.spec, self.group, self.device)
        for number, members in enumerate(self.by_kind.values()):
            for slot, member in enumerate(members):
                if moments := self._rows[member.job][1]:
                    self.engine.load_moments(number, slot, moments)
        self._rows = {}
        place = (self.engine.zero_stage, self.group.rank, self.group.world_size, self.device, torch.get_num_threads(), len(self.members))
        log.info("DeepSpeedEngine, ZeRO stage %d, rank %d of %d, on %s, %d threads, %d styles", *place)

    def _take_in_joiners(self) -> None:
        joining = self.group.agree(self._prepared_joiners())
        if joining:
            known = {member.job for member in self.members}
            self._take_in(joining)
            for member in self.members:
                if member.job not in known:
                    self._only_its_own(member, "beginning to train", self._begin)

    def _prepared_joiners(self) -> tuple[PreparedStyle, ...]:
        """Only on rank 0; nothing elsewhere."""
        waiting = self.reporter.joining() if self.reporter is not None else []
        return prepare_pack(waiting, self.cache_folder.uri, self.reporter) if waiting and self.reporter is not None else ()

    # A step

    def _train_step(self) -> None:
        members = self._ready_for_a_step()
        if not members:
            return
        losses = [0.0] * len(members)
        plan = self._passes(members)
        for each in plan:
            batch = assemble(each, members, self.base)
            predicted = self._forward(each, batch)
            row_losses = batch.losses(predicted)
            self.engine.backward((row_losses * batch.shares).sum(), last=each is plan[-1])
            for style, total in batch.totals(row_losses):
                losses[style] += total
        totals = self.group.sum(torch.tensor(losses, dtype=torch.float64)).tolist()
        self.engine.step([[member.update for member in same_kind] for same_kind in self.by_kind.values()])
        finite = [self.engine.is_finite(*self._place(member)) for member in members]  # before slots move
        outcomes = zip(members, totals, finite, strict=True)
        stepped = [partial(each.stepped, total / each.spec.global_batch_size, gradient_is_finite=good) for each, total, good in outcomes]
        self._each_its_own(members, "recording a step", stepped)
        for member in self.members:
            if self._is_anything_due(member):
                self._only_its_own(member, "doing what is due after a step", self._do_what_is_due)

    def _ready_for_a_step(self) -> list[Member]:
        """The members that have their part of the step; whose could not be drawn have left."""
        rank, world_size = self.group.rank, self.group.world_size
        draw = [partial(member.draw, rank=rank, world_size=world_size) for member in self.members]
        self._each_its_own(self.members, "drawing its pictures", draw)
        return self.members

    def _passes(self, members: Sequence[Member]) -> list[Pass]:
        work = []
        for number, member in enumerate(members):
            work.append(Work(number, *self._place(member), tuple(member.latent_shape(member.drawn[0])), member.drawn))
        return passes(work, padding_rules(self.device.type, torch.get_num_threads()) if self.batch_invariant else PaddingRules())

    def _forward(self, each: Pass, batch: PackBatch) -> Tensor:
        start = 0
        active = []
        for slot_group in each.slot_groups:
            active.append(
                ActiveSlots(
                    self.engine.banks[slot_group.bank],
                    slot_group.slots,
                    start,
                    slot_group.rows_each,
                    batch.dropout_seeds.get(slot_group.bank, ()),
                )
            )
            start += slot_group.num_rows
        self.model.assignment.active = active
        text = batch.text if self.model.text_encoder is None else batch.tokens(self.base)
        return self.engine(batch.noisy, batch.timesteps, text.to(self.device))

    def _is_anything_due(self, member: Member) -> bool:
        """The same on every worker, at no cost."""
        return member.is_done or member.is_due(member.spec.validation.every_steps) or member.is_due(member.spec.checkpointing.every_steps)

    def _do_what_is_due(self, member: Member) -> None:
        last = member.spec.training.max_steps
        if member.is_due(member.spec.validation.every_steps) and member.step < last:
            self._evaluate(member)
            member.tell(phase="training")
        if member.is_due(member.spec.checkpointing.every_steps) or member.is_done:
            self._save_checkpoint(member)
        if member.is_done:
            self._finish(member)

    # One member

    def _only_its_own(self, member: Member, doing: str, action: Callable[[Member], None]) -> None:
        """Runs a collective action whose failure, on any worker, ends this member only."""
        try:
            with one_style.only(member.job, doing, self.group, has_trained=member.step > 0, in_lock_step=self._is_in_lock_step):
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
                with one_style.only(member.job, doing, has_trained=member.step > 0):
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
        self._leave(member)
        self._say_failed(member.job, error, member.step)

    def _begin(self, member: Member) -> None:
        if member.is_done:
            self._finish(member)
            return
        if member.step == 0:
            self._evaluate(member)
        member.tell(phase="training", step=member.step)

    def _evaluate(self, member: Member) -> None:
        member.tell(phase="evaluating")
        loss = evaluate.held_out_loss(
            partial(self._predict_alone, member),
            held_out=member.style.held_out,
            encoded=member.encoded,
            captions=member.style.captions,
            key=member.style.key,
            scheduler=self.base.noise_scheduler,
            device=self.device,
            group=self.group,
            lock_step=self.engine.zero_stage == 3,
        )
        member.evaluated(member.step, loss)
        if member.spec.validation.prompts:
            self._draw_samples(member)

    def _predict_alone(self, member: Member, noisy: Tensor, timesteps: Tensor, captions: Sequence[str]) -> Tensor:
        self._activate_alone(member)
        trains_text = self.model.text_encoder is not None
        text = self.base.family.tokenize(self.base.tokenizer, captions) if trains_text else member.encoded.text(captions)
        return self.engine(noisy, timesteps, text.to(self.device))

    def _activate_alone(self, member: Member) -> None:
        bank, slot = self._place(member)
        self.model.assignment.active = [ActiveSlots(self.engine.banks[bank], [slot])]

    def _draw_samples(self, member: Member) -> None:
        member.tell(phase="sampling")
        lock_step = self.engine.zero_stage == 3  # its forward is collective: all draw, rank 0 keeps
        if self.group.rank == 0 or lock_step:
            self._activate_alone(member)
            if self._pipeline is None:
                self._pipeline = self.base.pipeline(self.model.unet).to(self.device)
            # A stop must not wait for 64 pictures; under lock-step no rank may leave before the others.
            must_stop = (lambda: False) if lock_step or self.reporter is None else partial(self.reporter.must_stop, member.job)
            pictures = self._first_pictures.get(self._first_key(member))
            if pictures is None:
                with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.model.bf16):
                    self.model.load_weights()
                    pictures = evaluate.draw_samples(self._pipeline, member.spec.validation, member.style.resolution, must_stop)
                if member.step == 0 and len(pictures) == len(member.spec.validation.prompts):
                    self._first_pictures[self._first_key(member)] = pictures
            if self.group.rank == 0:
                named = {f"{index:03d}.png": each for index, each in enumerate(pictures)}
                member.folder(member.layout.samples(member.step)).write_all(named)
        self.group.barrier()

    def _first_key(self, member: Member) -> tuple[object, ...]:
        """Before the first step an adapter changes nothing (DoRA: but for rounding), so styles with the same prompts share pictures."""
        return member.step, member.spec.validation.model_dump_json(), member.style.resolution, member.kind.method

    def _checkpoint(self, member: Member) -> Checkpoint:
        """Everything that the member needs to resume. Raises RunFailed for non-finite weights, which are never saved."""
        bank, slot = self._place(member)
        layout = self.engine.banks[bank].layout
        weights = layout.named(self.engine.weights(bank, slot))
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise member.not_finite(f"the adapter's weights are not finite after step {member.step}")
        moments = {
            f"{key}.{name}": tensor for key, row in self.engine.moments(bank, slot).items() for name, tensor in layout.named(row).items()
        }
        return Checkpoint(member.progress, weights, moments)

    def _save_checkpoint(self, member: Member) -> None:
        saved = self._checkpoint(member)
        self.group.on_first(partial(checkpoint.write, member.checkpoints, saved, job=member.job, keep=member.spec.checkpointing.keep))
        member.tell(checkpoint_step=member.step)
        if member.metrics is not None:
            member.metrics.upload()

    def _finish(self, member: Member) -> None:
        if all(step != member.step for step, _ in member.held_out_losses):  # one that stops early has just been evaluated
            self._evaluate(member)
        weights = self._checkpoint(member).weights
        self.group.on_first(partial(self._commit, member, weights))
        self._leave(member)

    def _commit(self, member: Member, weights: Mapping[str, Tensor]) -> None:
        """Only on rank 0."""
        member.tell(phase="exporting")
        if self.reporter is not None:
            self.reporter.must_stop(member.job)  # raises when another attempt has taken over: then this one writes nothing
        member.close_metrics()
        samples = member.step if member.spec.validation.prompts else None
        with span("export", job=member.job):
            committed = artifact.commit(member.told_style, weights, member.progress, samples)
        log.info("artifact committed after step %d", member.step)
        if self.reporter is not None:
            self.reporter.succeeded(member.job, member.step, committed)

    # Leaving

    def _stop_requested(self) -> None:
        jobs = [member.job for member in self.members if self.reporter is not None and self.reporter.must_stop(member.job)]
        stopping = self.group.agree(jobs)
        if leaving.is_heard() and self.group.any(leaving.is_told()):
            log.warning("a pod of this run must go: every style saves its work and stops")
            self.must_leave, stopping = True, [member.job for member in self.members]
        for member in [member for member in self.members if member.job in stopping]:
            self._only_its_own(member, "stopping", self._stop)

    def _stop(self, member: Member) -> None:
        if member.step:
            self._save_checkpoint(member)
        self._leave(member)
        log.info("stopped after step %d, on request", member.step)
        if self.reporter is not None:
            self.reporter.stopped(member.job, member.step)

    def _leave(self, member: Member) -> None:
        """Frees the member's row. The others' rows, and so their numbers, stay what they were."""
        if member not in self.members:
            return  # it failed as it left
        bank, slot = self._place(member)
        same_kind = self.by_kind[member.kind]
        if len(self.members) > 1:
            self.engine.free(bank, slot)
        same_kind[slot] = same_kind[-1]
        same_kind.pop()
        try:
            with one_style.only(member.job, "closing its curves"):
                member.close_metrics()
        except RunFailed as error:
            log.warning("%s", error)

    def _say_failed(self, job: str, error: RunFailed, step: int = 0) -> None:
        with run_log.about(job):
            log.error("%s", error)
        if self.reporter is not None:
            self.reporter.failed(job, error, step)

    def _place(self, member: Member) -> tuple[int, int]:
        """Number of the member's bank, and its slot."""
        return list(self.by_kind).index(member.kind), self.by_kind[member.kind].index(member)
