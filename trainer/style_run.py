"""One style from its cached latents to its committed artifact, on one worker of the group. Reads as the README tells it."""

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from lorafleet.errors import RunFailed
from lorafleet.layout import JobLayout
from trainer import artifact, base_model, checkpoint, evaluate, latent_cache, objective
from trainer.adapters import lora
from trainer.checkpoint import Checkpoint, Progress
from trainer.data.sampler import Sampler, share
from trainer.engine import Engine
from trainer.families import family
from trainer.group import Group
from trainer.metrics import Metrics
from trainer.prepare import PreparedStyle
from trainer.report import Reporter
from trainer.storage import Folder

RATE_WINDOW_STEPS = 50

log = logging.getLogger("lorafleet.style")

Outcome = Literal["succeeded", "stopped"]


class StyleRun:
    """Trains one style. Every method is collective unless it says otherwise."""

    def __init__(self, style: PreparedStyle, cache_folder: Folder, group: Group, device: torch.device, reporter: Reporter | None) -> None:
        self.style, self.spec, self.group, self.device, self.reporter = style, style.spec, group, device, reporter
        self.layout = JobLayout(style.output_uri)
        self.family = family(style.base.family)
        self.base = base_model.materialise(style.base)
        self.scheduler = self.family.load_noise_scheduler(self.base)
        self.tokenizer = cache(lambda: self.family.load_tokenizer(self.base))
        self.text_encoder = cache(lambda: self.family.load_text_encoder(self.base).to(device))
        self._pipeline: Any = None
        self._encode(cache_folder)
        self.sampler = Sampler(style.key, style.members, self.spec.global_batch_size)
        self._resume_or_start()

    def train(self) -> Outcome:
        """Trains to the last step, or to the stop that was asked for."""
        if self.step == 0:
            self._evaluate(0)
        self._tell(phase="training", step=self.step)
        last = self.spec.training.max_steps
        while self.step < last:
            if self._must_stop():
                if self.step:
                    self._save_checkpoint()
                self._say_stopped()
                return "stopped"
            self._train_step()
            if self._is_due(self.spec.validation.every_steps) and self.step < last:
                self._evaluate(self.step)
                self._tell(phase="training")
            if self._is_due(self.spec.checkpointing.every_steps) or self.step == last:
                self._save_checkpoint()
        self._finish()
        return "succeeded"

    def _encode(self, cache_folder: Folder) -> None:
        self._tell(phase="encoding")
        vae = cache(lambda: self.family.load_vae(self.base, self.device))
        self.encoded = latent_cache.encode(self.style, cache_folder, self.family, vae, self.text_encoder, self.tokenizer, self.group)

    def _resume_or_start(self) -> None:
        saved = self._newest_checkpoint()
        trains_text = self.spec.adapter.text_encoder
        unet = self.family.load_denoiser(self.base)
        text_encoder = self.text_encoder() if trains_text else None
        if self.spec.training.precision == "bf16":
            unet = unet.to(torch.bfloat16)
        model = lora.Trainable(self.family, unet, text_encoder, bf16=self.spec.training.precision == "bf16")
        lora.inject(unet, text_encoder, self.spec.adapter, self.style.key)
        if saved is not None:
            lora.load(model, saved.weights)
        self.model = model
        self.engine = Engine(model.train(), self.spec, self.group, self.device)
        progress = saved.progress if saved is not None else Progress(step=0)
        self.step = progress.step  # optimizer steps done
        self.losses = list(progress.losses)
        self.held_out_losses = list(progress.held_out_losses)
        place = (self.engine.zero_stage, self.group.rank, self.group.world_size, self.device, torch.get_num_threads())
        log.info("DeepSpeedEngine, ZeRO stage %d, rank %d of %d, on %s, %d threads", *place)
        self.durations_s: deque[float] = deque(maxlen=RATE_WINDOW_STEPS)
        if saved is not None:
            self.engine.load_moments(saved.moments, steps_done=saved.progress.step)
        self.metrics = Metrics(Folder(self.layout.metrics), resumed_at=self.step) if self.group.rank == 0 else None
        if saved is not None and self.reporter is not None:
            self.reporter.resumed(self.style.job, self.step)

    def _newest_checkpoint(self) -> Checkpoint | None:
        """Rank 0 chooses: ranks that looked for themselves might start at different steps."""
        folder, job = Folder(self.layout.checkpoints), self.style.job
        saved = checkpoint.newest(folder, job=job) if self.group.rank == 0 else None
        step = self.group.agree(saved.progress.step if saved is not None else None)
        return checkpoint.read(folder, step, job=job) if saved is None and step is not None else saved

    @property
    def progress(self) -> Progress:
        return Progress(step=self.step, losses=tuple(self.losses), held_out_losses=tuple(self.held_out_losses))

    def _train_step(self) -> None:
        started_s = time.perf_counter()
        training = self.spec.training
        examples = objective.draws(self.sampler.batch(self.step), self.step)
        rate = objective.learning_rate(training, self.step)
        total = torch.zeros((), dtype=torch.float64)
        for piece in share(examples, rank=self.group.rank, world_size=self.group.world_size, micro_batch_size=training.micro_batch_size):
            losses = self._losses(piece)
            self.engine.backward(losses.mean())
            self.engine.step(learning_rate=rate)
            total += losses.detach().double().sum().cpu()
        loss = self.group.sum(total).item() / len(examples)
        self._check_finite(loss)
        self.step += 1
        self.losses.append((self.step, loss))
        self.durations_s.append(time.perf_counter() - started_s)
        self._log(loss, rate)

    def _losses(self, examples: Sequence[objective.Draw]) -> Tensor:
        batch = objective.micro_batch(
            examples,
            encoded=self.encoded,
            captions=self.style.captions,
            key=self.style.key,
            spec=self.spec.training,
            scheduler=self.scheduler,
            device=self.device,
        )
        if self.spec.adapter.dropout:
            lora.set_dropout_seeds(self.model, [objective.dropout_seed(self.style.key, each) for each in examples])
        return objective.per_sample_loss(self._predict(batch.noisy, batch.timesteps, batch.captions), batch)

    def _predict(self, noisy: Tensor, timesteps: Tensor, captions: Sequence[str]) -> Tensor:
        trains_text = self.spec.adapter.text_encoder
        text = self.family.tokenize(self.tokenizer(), captions) if trains_text else self.encoded.text(captions)
        return self.engine(noisy, timesteps, text.to(self.device))

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            self._fail_not_finite(f"the training loss is {loss} at step {self.step + 1}")

    def _finite_weights(self) -> dict[str, Tensor]:
        """The adapter by canonical name. A finite loss may have had a gradient that was not: such weights are never saved."""
        weights = {lora.canonical_name(name): tensor for name, tensor in self.engine.weights().items()}
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            self._fail_not_finite(f"the adapter's weights are not finite after step {self.step}")
        return weights

    def _fail_not_finite(self, what: str) -> NoReturn:
        kept = checkpoint.newest_step(Folder(self.layout.checkpoints))
        raise RunFailed(
            f"{what}; "
            + (f"the checkpoint of step {kept} is kept" if kept else "no checkpoint was saved before it")
            + "; a lower training.learning_rate or a max_grad_norm usually helps",
            reason="LOSS_NOT_FINITE",
        )

    def _log(self, loss: float, rate: float) -> None:
        if self.metrics is None:
            return
        pictures_per_second = self.spec.global_batch_size * len(self.durations_s) / sum(self.durations_s)
        self.metrics.scalars(self.step, loss=loss, learning_rate=rate, pictures_per_second=pictures_per_second)
        remaining = (self.spec.training.max_steps - self.step) * self.spec.global_batch_size / pictures_per_second
        self._tell(step=self.step, loss=loss, learning_rate=rate, pictures_per_second=pictures_per_second, remaining_s=remaining)

    def _evaluate(self, step: int) -> None:
        self._tell(phase="evaluating")
        lora.set_dropout_seeds(self.model, ())
        loss = evaluate.held_out_loss(
            self._predict,
            held_out=self.style.held_out,
            encoded=self.encoded,
            captions=self.style.captions,
            key=self.style.key,
            scheduler=self.scheduler,
            device=self.device,
            group=self.group,
            lock_step=self.engine.zero_stage == 3,
        )
        if loss is not None:
            self.held_out_losses.append((step, loss))
            self._tell(**({"held_out_loss_base": loss} if step == 0 else {}), held_out_loss=loss)
        if self.metrics is not None:
            self.metrics.scalars(step, held_out_loss=loss)
        if self.spec.validation.prompts:
            self._draw_samples(step)

    def _draw_samples(self, step: int) -> None:
        self._tell(phase="sampling")
        lock_step = self.engine.zero_stage == 3  # its forward is collective: all draw, rank 0 keeps
        if self.group.rank == 0 or lock_step:
            if self._pipeline is None:
                self._pipeline = self.family.pipeline(self.base, self.model.unet, self.text_encoder()).to(self.device)
            # A stop must not wait for 64 pictures; under lock-step no rank may leave before the others.
            must_stop = (lambda: False) if lock_step or self.reporter is None else partial(self.reporter.must_stop, self.style.job)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.training.precision == "bf16"):
                pictures = evaluate.draw_samples(self._pipeline, self.spec.validation, self.style.resolution, must_stop)
            if self.group.rank == 0:
                Folder(self.layout.samples(step)).write_all({f"{index:03d}.png": picture for index, picture in enumerate(pictures)})
        self.group.barrier()

    def _save_checkpoint(self) -> None:
        saved = Checkpoint(self.progress, self._finite_weights(), self.engine.moments())
        if self.group.rank == 0:
            checkpoint.write(Folder(self.layout.checkpoints), saved, job=self.style.job, keep=self.spec.checkpointing.keep)
            self._tell(checkpoint_step=self.step)
            if self.metrics is not None:
                self.metrics.upload()

    def _finish(self) -> None:
        self._evaluate(self.step)
        weights = self._finite_weights()
        if self.group.rank != 0:
            return
        self._tell(phase="exporting")
        if self.reporter is not None:
            self.reporter.must_stop(self.style.job)  # raises when another attempt has taken over: then this one writes nothing
        if self.metrics is not None:
            self.metrics.close()
        committed = artifact.commit(self.style, weights, self.progress, self.step if self.spec.validation.prompts else None)
        if self.reporter is not None:
            self.reporter.succeeded(self.style.job, self.step, committed)

    def _say_stopped(self) -> None:
        if self.metrics is not None:
            self.metrics.close()
        if self.reporter is not None:
            self.reporter.stopped(self.style.job, self.step)

    def _must_stop(self) -> bool:
        return self.group.agree(self.reporter.must_stop(self.style.job) if self.reporter is not None else None)

    def _is_due(self, every_steps: int) -> bool:
        return every_steps > 0 and self.step % every_steps == 0

    def _tell(self, **changes: object) -> None:
        if self.reporter is not None:
            self.reporter.progress(self.style.job, **changes)
