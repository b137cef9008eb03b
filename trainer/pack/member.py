"""One style in a pack: its data, random draws and progress. Knows neither the engine nor the other styles."""

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lorafleet.catalog import PRECISIONS
from lorafleet.contract.layout import JobLayout
from lorafleet.errors import RunFailed
from trainer import checkpoint
from trainer.adapters.layout import Kind
from trainer.checkpoint import Checkpoint, Progress
from trainer.data.buckets import picture_size
from trainer.data.sampler import Sampler, share
from trainer.families.protocol import Conditioning, Family
from trainer.keyed import Purpose
from trainer.loss_scale import LossScale
from trainer.metrics import Metrics
from trainer.objectives.draws import Draw, Noised, draws, dropout_seed, drops_caption, noised, sampled
from trainer.objectives.masking import Masking
from trainer.objectives.protocol import Objective
from trainer.optimizers.protocol import StyleUpdate
from trainer.optimizers.schedule import Rates, learning_rate
from trainer.prepare.latent_cache import Encoded
from trainer.prepare.style import PreparedStyle
from trainer.report import Reporter
from trainer.storage import Folder

RATE_WINDOW_STEPS = 50

log = logging.getLogger("lorafleet.pack")


class Member:
    """A style that trains. Every worker has one of each style; only rank 0's has a reporter and writes metrics."""

    def __init__(
        self, style: PreparedStyle, encoded: Encoded, objective: Objective, saved: Checkpoint | None, reporter: Reporter | None
    ) -> None:
        self.style, self.spec, self.encoded, self.objective, self.reporter = style, style.spec, encoded, objective, reporter
        self.masking = Masking.of(style.spec.objective)
        self.layout = JobLayout(style.output_uri)
        self.kind = Kind.of_spec(style.spec)
        self._rates = Rates.of(style.spec)
        self.sampler = Sampler(style.key, style.members, style.spec.global_batch_size)
        self.prior_sampler = Sampler(style.key, style.prior_members, style.spec.global_batch_size, Purpose.PRIOR_ORDER)
        progress = saved.progress if saved is not None else Progress(step=0)
        self.step = progress.step  # optimizer steps done
        self.losses = list(progress.losses)
        self.held_out_losses = list(progress.held_out_losses)
        computes_fp16 = PRECISIONS.get(self.spec.training.precision).computes == "fp16"
        self._scale: LossScale | None = (progress.loss_scale or LossScale()) if computes_fp16 else None
        self.metrics: Metrics | None = None
        self.drawn: list[Sequence[Draw]] = []
        self._durations_s: deque[float] = deque(maxlen=RATE_WINDOW_STEPS)

    @property
    def job(self) -> str:
        return self.style.job

    @property
    def told_style(self) -> PreparedStyle:
        """The style with what became known of it while it was encoded, for its model card."""
        return replace(self.style, cut_captions=self.encoded.cut(self.style))

    @property
    def progress(self) -> Progress:
        return Progress(step=self.step, losses=tuple(self.losses), held_out_losses=tuple(self.held_out_losses), loss_scale=self._scale)

    @property
    def loss_scale(self) -> float:
        """Of the current step."""
        return 1.0 if self._scale is None else self._scale.scale

    @property
    def is_done(self) -> bool:
        return self.step >= self.spec.training.max_steps or self.has_stopped_improving

    @property
    def has_stopped_improving(self) -> bool:
        """Whether the newest held-out losses, as many as the spec's patience, hold no new lowest."""
        patience = self.spec.validation.early_stopping_patience
        losses = [loss for _, loss in self.held_out_losses]
        return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])

    @property
    def learning_rate(self) -> float:
        return learning_rate(self.spec.training, self.step)

    @property
    def update(self) -> StyleUpdate:
        """The optimizer's parameters for the current step."""
        skipped = 0 if self._scale is None else self._scale.skipped
        rates = self._rates.at(self.step)
        keeps = self.spec.textual_inversion.keep_deviation and self.step < self.spec.token_steps
        return StyleUpdate(
            self.spec.training, self.learning_rate, self.step - skipped, self.loss_scale, self.spec.gives_average, rates, keeps
        )

    def draw(self, *, rank: int, world_size: int) -> None:
        """Draws this worker's part of the step that begins, one item of `drawn` for each forward pass."""
        self.drawn = self.draws(self.step, rank=rank, world_size=world_size)

    def draws(self, step: int, *, rank: int, world_size: int) -> list[Sequence[Draw]]:
        """This worker's part of a step, an item for each forward pass."""
        place = self.sampler.bucket(step)
        samplers = (self.sampler, self.prior_sampler) if self.style.prior is not None else (self.sampler,)
        pieces = [
            share(
                draws(sampler.visit(*place), step),
                rank=rank,
                world_size=world_size,
                micro_batch_size=self.spec.training.micro_batch_size,
            )
            for sampler in samplers
        ]
        return [[draw for piece in alike for draw in piece] for alike in zip(*pieces, strict=True)]

    def noised(self, examples: Sequence[Draw]) -> Noised:
        latents = torch.stack([self.encoded.latents[each.sample] for each in examples])
        if self.style.samples_latents:
            latents = sampled(latents, torch.stack([self.encoded.deviations[each.sample] for each in examples]), examples, self.style.key)
        drawn = noised(latents, examples, self.style.key, self.objective)
        if (prior := self.spec.dataset.regularization) is None:
            return drawn
        weights = [prior.weight if self.style.crops[each.sample].is_prior else 1.0 for each in examples]
        return replace(drawn, weight=drawn.weight * torch.tensor(weights))

    @property
    def is_masked(self) -> bool:
        return bool(self.encoded.masks)

    def mask(self, samples: Sequence[int]) -> Tensor | None:
        """How much each place of these pictures counts, (rows, 1, h, w); None: the style has no masks."""
        if not self.is_masked:
            return None
        found = [self.encoded.masks.get(sample) for sample in samples]
        height, width = self.encoded.latents[samples[0]].shape[-2:]  # which they have in common
        return self.masking.places(torch.stack([torch.ones(1, height, width) if mask is None else mask for mask in found]))

    def captions(self, examples: Sequence[Draw]) -> list[str]:
        share = self.spec.training.caption_dropout
        return ["" if drops_caption(self.style.key, each, share) else self.style.captions[each.sample] for each in examples]

    def conditioning(self, family: Family, samples: Sequence[int], captions: Sequence[str]) -> Conditioning:
        """Of pictures with these captions, from the cache."""
        crops = [self.style.crops[sample] for sample in samples]
        sizes = [picture_size(crop.picture.width, crop.picture.height, crop.bucket) for crop in crops]
        return family.condition(self.encoded.text(captions), sizes)

    def dropout_seeds(self, examples: Sequence[Draw]) -> list[int]:
        return [dropout_seed(self.style.key, each) for each in examples] if self.spec.adapter.drops else []

    def latent_shape(self, examples: Sequence[Draw]) -> torch.Size:
        return self.encoded.latents[examples[0].sample].shape

    @property
    def waits_for_its_loss(self) -> bool:
        """Whether the next step depends on how this one went: its loss scale does."""
        return self._scale is not None

    def launched(self) -> None:
        """A step is under way: what comes next belongs to the one after."""
        self.step += 1

    def stepped(self, number: int, loss: float, *, gradient_is_finite: bool, duration_s: float) -> None:
        """Records step `number`. Raises RunFailed for a non-finite loss or gradient; where losses are scaled only for too many in a row."""
        if self._scale is not None and not (math.isfinite(loss) and gradient_is_finite):
            self._skip(self._scale)
            return
        if not (math.isfinite(loss) and gradient_is_finite):
            self.step = number - 1  # later ones that were launched meanwhile count for nothing
            what = "the gradient is not finite" if math.isfinite(loss) else f"the training loss is {loss}"
            raise self.not_finite(f"{what} at step {number}")
        self._scale = None if self._scale is None else self._scale.stepped()
        self.losses.append((number, loss))
        self._durations_s.append(duration_s)
        self._tell_step(number, loss)

    def _skip(self, before: LossScale) -> None:
        """A step that overflowed is over; its weights are as they were. The next is tried at half the scale."""
        self._scale = after = before.overflowed()
        if after.is_hopeless or (self.is_done and after.skipped == self.step):
            raise RunFailed(
                f"{self.spec.training.precision} overflowed in each of {after.skipped_in_row} steps up to step {self.step}, though the "
                f"loss scale fell to {before.scale:g}: activations themselves are beyond its range; use training.precision bf16",
                reason="FP16_OVERFLOW",
            )
        log.warning(
            "step %d skipped: its gradient overflowed at a loss scale of %g; %d skipped so far", self.step, before.scale, after.skipped
        )
        if self.metrics is not None:
            self.metrics.scalars(self.step, skipped_steps=after.skipped, loss_scale=after.scale)
        self.tell(step=self.step)

    def evaluated(self, step: int, loss: float | None) -> None:
        """Records a held-out loss; None: the style has no held-out pictures.

        One that is no number, as half precision may give at a single time, is no measure of the adapter, and no checkpoint holds one.
        """
        if loss is not None and not math.isfinite(loss):
            log.warning("the held-out loss after step %d is %s, and not recorded", step, loss)
            loss = None
        if loss is not None:
            self.held_out_losses.append((step, loss))
            self.tell(**({"held_out_loss_base": loss} if step == 0 else {}), held_out_loss=loss)
        if self.metrics is not None:
            self.metrics.scalars(step, held_out_loss=loss)

    def is_due(self, every_steps: int) -> bool:
        return every_steps > 0 and self.step % every_steps == 0

    def not_finite(self, what: str) -> RunFailed:
        kept = checkpoint.newest_step(self.checkpoints)
        return RunFailed(
            f"{what}; "
            + (f"the checkpoint of step {kept} is kept" if kept else "no checkpoint was saved before it")
            + "; a lower training.learning_rate or a max_grad_norm usually helps",
            reason="LOSS_NOT_FINITE",
        )

    @property
    def checkpoints(self) -> Folder:
        return self.folder(self.layout.checkpoints)

    def folder(self, uri: str) -> Folder:
        """A folder of its output, that no symbolic link leads out of."""
        return Folder(uri, within=self.layout.root)

    def open_metrics(self) -> None:
        self.metrics = Metrics(self.folder(self.layout.metrics), resumed_at=self.step)

    def close_metrics(self) -> None:
        metrics, self.metrics = self.metrics, None
        if metrics is not None:
            metrics.close()

    def tell(self, **changes: object) -> None:
        if self.reporter is not None:
            self.reporter.progress(self.job, **changes)

    def _tell_step(self, number: int, loss: float) -> None:
        rate = self._rates.told(number - 1)
        pictures_per_second = self.spec.pictures_per_step * len(self._durations_s) / sum(self._durations_s)
        if self.metrics is not None:
            self.metrics.scalars(number, loss=loss, learning_rate=rate, pictures_per_second=pictures_per_second)
        remaining = (self.spec.training.max_steps - number) * self.spec.pictures_per_step / pictures_per_second
        self.tell(step=number, loss=loss, learning_rate=rate, pictures_per_second=pictures_per_second, remaining_s=remaining)
