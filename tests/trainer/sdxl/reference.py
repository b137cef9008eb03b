"""SDXL's training written a second time, with diffusers, PEFT and torch alone: one style, one loop, nothing stacked or cached.

Of the trainer it takes what says which draw is meant: keys, the order of the pictures, buckets, and the names that initial weights
are drawn under. What is computed with them is its own: conditioning, noising, loss, adapters, clipping, AdamW, the rate.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lorafleet.spec import OptimizationSpec
from trainer.data.buckets import cover
from trainer.data.sampler import Sampler
from trainer.keyed import Purpose
from trainer.prepare.style import PreparedStyle

TIMESTEPS = 1000
HELD_OUT_TIMES = 8
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


@dataclass
class Trained:
    """What the loop has to show: losses by step, the held-out loss before and after, and the adapter by the trainer's names."""

    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    initial: dict[str, Tensor] = field(default_factory=dict)
    adapter: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """One picture of one step; the indices key its draws."""

    step: int
    sample: int
    repeat: int

    @property
    def indices(self) -> tuple[int, int, int]:
        return self.step, self.sample, self.repeat


class Reference:
    """One style on one base."""

    def __init__(self, base: Path, style: PreparedStyle, dtype: torch.dtype = torch.float32) -> None:
        self.style, self.dtype = style, dtype
        self.unet = _frozen(UNet2DConditionModel, base / "unet", dtype)
        self.texts = [
            _frozen(CLIPTextModel, base / "text_encoder", dtype),
            _frozen(CLIPTextModelWithProjection, base / "text_encoder_2", dtype),
        ]
        self.tokenizers = [CLIPTokenizer.from_pretrained(base / name) for name in ("tokenizer", "tokenizer_2")]
        self.vae = _frozen(AutoencoderKL, base / "vae", dtype)
        self.is_v, self.alphas = schedule(base)
        self.latents: dict[int, Tensor] = {}
        self.adapted = {"unet": self.unet}
        if style.spec.adapter.text_encoder:
            self.adapted |= dict(zip(("text_encoder", "text_encoder_2"), self.texts, strict=True))
        self._put_adapters_on()

    def train(self) -> Trained:
        """The whole training of the spec."""
        training = self.style.spec.training
        trained = Trained(initial=self.named())
        parameters = [parameter for _, parameter in self._trainable()]
        optimizer = torch.optim.AdamW(
            parameters, betas=(training.adam_beta1, training.adam_beta2), eps=training.adam_epsilon, weight_decay=training.weight_decay
        )
        trained.held_out += self.held_out_loss()
        sampler = Sampler(self.style.key, self.style.members, self.style.spec.global_batch_size)
        for step in range(training.max_steps):
            trained.losses.append(self._step(_examples(sampler.batch(step), step), optimizer))
        trained.held_out += self.held_out_loss()
        trained.adapter = self.named()
        return trained

    def loss_of_step(self, step: int) -> float:
        """Of the base, on the pictures and draws of that step."""
        sampler = Sampler(self.style.key, self.style.members, self.style.spec.global_batch_size)
        with torch.no_grad():
            return float(self.loss(_examples(sampler.batch(step), step)))

    def _step(self, examples: Sequence[Example], optimizer: torch.optim.Optimizer) -> float:
        training = self.style.spec.training
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.zero_grad()
        total = 0.0
        for start in range(0, len(examples), training.micro_batch_size):
            loss = self.loss(examples[start : start + training.micro_batch_size])
            (loss / training.gradient_accumulation_steps).backward()
            total += float(loss.detach()) / training.gradient_accumulation_steps
        for parameter in parameters:
            # The last layer of the first encoder gives nothing to penultimate states. An adapter is one row to its optimizer:
            # its weights decay all the same.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if training.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = _rate(training, examples[0].step)
        optimizer.step()
        return total

    def loss(self, examples: Sequence[Example]) -> Tensor:
        """The mean over these pictures."""
        training, key = self.style.spec.training, self.style.key
        latents = torch.cat([self.latent(each.sample) for each in examples])
        noise = self._normals(Purpose.NOISE, examples, tuple(latents.shape[1:]))
        if training.noise_offset:
            noise = noise + training.noise_offset * self._normals(Purpose.NOISE_OFFSET, examples, (latents.shape[1], 1, 1))
        times = torch.tensor([int(key.generator(Purpose.TIMESTEP, *each.indices).integers(TIMESTEPS)) for each in examples])
        captions = ["" if self._drops_caption(each) else self.style.captions[each.sample] for each in examples]
        errors = self._errors(latents, noise, times, captions, [each.sample for each in examples])
        return (errors * self._weight(times)).mean()

    def held_out_loss(self) -> list[float]:
        """Over all held-out pictures at fixed times, unweighted; empty without such pictures."""
        errors: list[float] = []
        times = [int((number + 0.5) / HELD_OUT_TIMES * TIMESTEPS) for number in range(HELD_OUT_TIMES)]
        for sample in self.style.held_out:
            latents = self.latent(sample).expand(HELD_OUT_TIMES, -1, -1, -1)
            generators = [self.style.key.generator(Purpose.HELD_OUT_NOISE, sample, time) for time in times]
            drawn = np.stack([generator.standard_normal(tuple(latents.shape[1:]), np.float32) for generator in generators])
            captions, samples = [self.style.captions[sample]] * HELD_OUT_TIMES, [sample] * HELD_OUT_TIMES
            with torch.no_grad():
                found = self._errors(latents, torch.from_numpy(drawn).to(self.dtype), torch.tensor(times), captions, samples)
            errors += found.tolist()
        return [sum(errors) / len(errors)] if errors else []

    def _errors(self, latents: Tensor, noise: Tensor, times: Tensor, captions: Sequence[str], samples: Sequence[int]) -> Tensor:
        """Squared error of each row, (rows,)."""
        alpha = self.alphas[times].to(self.dtype)[:, None, None, None]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        target = signal * noise - spread * latents if self.is_v else noise
        predicted = self.predict(signal * latents + spread * noise, times, captions, torch.stack([self.time_ids(each) for each in samples]))
        return (predicted - target).pow(2).mean(dim=(1, 2, 3))

    def predict(self, noisy: Tensor, times: Tensor, captions: Sequence[str], time_ids: Tensor) -> Tensor:
        text, pooled = self.encode(captions)
        added = {"text_embeds": pooled, "time_ids": time_ids.to(self.dtype)}
        return self.unet(noisy, times, encoder_hidden_states=text, added_cond_kwargs=added).sample

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return conditioning(text_outputs(self.tokenizers, self.texts, captions))

    def time_ids(self, sample: int) -> Tensor:
        """Original height and width, the top and left that the crop begins at, and the bucket's height and width."""
        picture, bucket = self.style.crops[sample].picture, self.style.crops[sample].bucket
        (across, down), _ = cover(picture.width, picture.height, bucket)
        top, left = (down - bucket.height) // 2, (across - bucket.width) // 2
        return torch.tensor([picture.height, picture.width, top, left, bucket.height, bucket.width])

    def latent(self, sample: int) -> Tensor:
        """(1, channels, height, width)."""
        if sample not in self.latents:
            pixels = torch.from_numpy(self._fitted(sample)).permute(2, 0, 1)[None].to(self.dtype) / 127.5 - 1
            with torch.no_grad():
                self.latents[sample] = self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor
        return self.latents[sample]

    def _fitted(self, sample: int) -> np.ndarray:
        """The middle of the picture at the size of its bucket, (height, width, 3)."""
        found, bucket = self.style.crops[sample].picture, self.style.crops[sample].bucket
        (across, down), (left, top, right, bottom) = cover(found.width, found.height, bucket)
        x, y = found.width / across, found.height / down
        with Image.open(Path(self.style.data_set.uri.removeprefix("file://")) / found.path) as picture:
            size, box = (bucket.width, bucket.height), (left * x, top * y, right * x, bottom * y)
            return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS, box=box), dtype=np.float32)

    def _weight(self, times: Tensor) -> Tensor:
        """Min-SNR (Hang et al. 2023, equation 7, and over snr + 1 for v): no 0 / 0 at the end where there is no signal."""
        gamma = self.style.spec.training.min_snr_gamma
        alpha = self.alphas[times]
        if gamma is None:
            return torch.ones_like(alpha).to(self.dtype)
        if self.is_v:  # min(snr, gamma) / (snr + 1), and snr + 1 is 1 / (1 - alpha)
            return torch.minimum(alpha, gamma * (1 - alpha)).to(self.dtype)
        return (gamma * (1 - alpha) / alpha).clamp(max=1).to(self.dtype)

    def _drops_caption(self, example: Example) -> bool:
        share = self.style.spec.training.caption_dropout
        return share > 0 and self.style.key.generator(Purpose.CAPTION_DROPOUT, *example.indices).random() < share

    def _normals(self, purpose: Purpose, examples: Sequence[Example], shape: tuple[int, ...]) -> Tensor:
        rows = [self.style.key.generator(purpose, *each.indices).standard_normal(shape, np.float32) for each in examples]
        return torch.from_numpy(np.stack(rows)).to(self.dtype)

    # Adapters

    def _put_adapters_on(self) -> None:
        """PEFT's own, begun with the numbers that the trainer's key draws for tensors of these names."""
        asked = self.style.spec.adapter
        for part, model in self.adapted.items():
            targets = TEXT_TARGETS if part.startswith("text_encoder") else list(asked.target_modules)
            alpha = asked.alpha if asked.alpha is not None else asked.rank
            inject_adapter_in_model(LoraConfig(r=asked.rank, lora_alpha=alpha, target_modules=targets), model)  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            for name, parameter in self._trainable():
                if ".lora_A." in name:
                    bound = 1 / math.sqrt(math.prod(parameter.shape[1:]))  # Kaiming's, as PEFT begins it
                    drawn = self.style.key.generator(Purpose.INIT, name).uniform(-bound, bound, parameter.shape)
                    parameter.copy_(torch.from_numpy(drawn).float())

    def named(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone().float() for name, parameter in self._trainable()}

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """By the trainer's names, in the order of the modules."""
        for part, model in self.adapted.items():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    yield f"{part}.{name.replace('.default.', '.')}", parameter


def relative(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """How far two adapters are apart, over the norm of one."""
    apart = sum(float((ours[name].double() - theirs[name].double()).pow(2).sum()) for name in theirs)
    return math.sqrt(apart / sum(float(tensor.double().pow(2).sum()) for tensor in theirs.values()))


def change(of: Trained) -> dict[str, Tensor]:
    """What training has added to each tensor."""
    return {name: tensor - of.initial[name] for name, tensor in of.adapter.items()}


def _examples(batch: Sequence[int], step: int) -> list[Example]:
    return [Example(step, sample, list(batch[:place]).count(sample)) for place, sample in enumerate(batch)]


def _frozen(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    return kind.from_pretrained(folder).eval().requires_grad_(False).to(dtype)


def text_outputs(tokenizers: Sequence[CLIPTokenizer], encoders: Sequence[Any], captions: Sequence[str]) -> list[Any]:
    """What each encoder gives for captions cut and padded by its own tokenizer."""
    outputs: list[Any] = []
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        length = tokenizer.model_max_length
        tokens = tokenizer(list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        outputs.append(encoder(tokens.input_ids, output_hidden_states=True))
    return outputs


def conditioning(outputs: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Penultimate states of both encoders side by side, (rows, tokens, both widths), and the second one's pooled text."""
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[1].text_embeds


def schedule(base: Path) -> tuple[bool, Tensor]:
    """Whether v is predicted, and what is left of the picture's variance at each time, (times,)."""
    scheduler: Any = DDPMScheduler.from_pretrained(base / "scheduler")
    return scheduler.config.prediction_type == "v_prediction", scheduler.alphas_cumprod


def _rate(training: OptimizationSpec, step: int) -> float:
    if step < training.lr_warmup_steps:
        return training.learning_rate * (step + 1) / training.lr_warmup_steps
    done = (step - training.lr_warmup_steps) / max(1, training.max_steps - training.lr_warmup_steps)
    falls = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return training.learning_rate * falls[training.lr_scheduler]
