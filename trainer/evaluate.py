"""How good an adapter is: the held-out loss at fixed timesteps and noise, and sample pictures from the prompts."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lorafleet.spec import ValidationSpec
from trainer.group import Group
from trainer.keyed import Key, Purpose
from trainer.latent_cache import Encoded
from trainer.objective import target

NUM_TIMESTEPS = 8  # for each held-out picture, spread evenly over the schedule
BATCH = 8  # part of the result to the last bit, so fixed
PROMPTS_AT_ONCE = 4  # with guidance 8 rows: more are hardly faster on a CPU, and one at a time takes twice as long

Predict = Callable[[Tensor, Tensor, Sequence[str]], Tensor]


def held_out_loss(
    predict: Predict,
    *,
    held_out: Sequence[int],
    encoded: Encoded,
    captions: Sequence[str],
    key: Key,
    scheduler: Any,
    device: torch.device,
    group: Group,
    lock_step: bool,
) -> float | None:
    """Mean squared error over the held-out pictures, unweighted; None without such pictures.

    The workers share the batches. With `lock_step` (ZeRO-3, whose forward is collective) each runs equally many.
    """
    if not held_out:
        return None
    steps = scheduler.config.num_train_timesteps
    pairs = [(sample, int((k + 0.5) / NUM_TIMESTEPS * steps)) for sample in held_out for k in range(NUM_TIMESTEPS)]
    by_shape: dict[torch.Size, list[tuple[int, int]]] = {}
    for sample, timestep in pairs:
        by_shape.setdefault(encoded.latents[sample].shape, []).append((sample, timestep))
    batches = [alike[start : start + BATCH] for alike in by_shape.values() for start in range(0, len(alike), BATCH)]
    total = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(batches), group.world_size):
        index = start + group.rank
        if index < len(batches):
            errors = _errors(predict, batches[index], encoded, captions, key, scheduler, device)
            total += torch.tensor([errors.sum().item(), len(errors)], dtype=torch.float64)
        elif lock_step:
            _errors(predict, batches[-1], encoded, captions, key, scheduler, device)
    error, count = group.sum(total).tolist()
    return error / count


@torch.no_grad()
def _errors(
    predict: Predict,
    batch: Sequence[tuple[int, int]],
    encoded: Encoded,
    captions: Sequence[str],
    key: Key,
    scheduler: Any,
    device: torch.device,
) -> Tensor:
    latents = torch.stack([encoded.latents[sample] for sample, _ in batch])
    shape = tuple(latents.shape[1:])
    drawn = [key.generator(Purpose.HELD_OUT_NOISE, sample, timestep).standard_normal(shape, dtype=np.float32) for sample, timestep in batch]
    noise = torch.from_numpy(np.stack(drawn))
    timesteps = torch.tensor([timestep for _, timestep in batch])
    noisy = scheduler.add_noise(latents, noise, timesteps)
    predicted = predict(noisy.to(device), timesteps.to(device), [captions[sample] for sample, _ in batch]).float().cpu()
    return (predicted - target(scheduler, latents, noise, timesteps)).pow(2).mean(dim=(1, 2, 3))


def draw_samples(pipeline: Any, spec: ValidationSpec, resolution: int, must_stop: Callable[[], bool]) -> list[bytes]:
    """One PNG for each prompt. Prompt i is drawn by a CPU generator seeded with seed + i, so anyone can draw it again:

    `pipeline(prompt, generator=torch.Generator("cpu").manual_seed(seed + i), guidance_scale=…, num_inference_steps=…)`.
    """
    pictures: list[bytes] = []
    for start in range(0, len(spec.prompts), PROMPTS_AT_ONCE):
        if must_stop():
            break
        indices = range(start, min(start + PROMPTS_AT_ONCE, len(spec.prompts)))
        pictures += [png(picture) for picture in _drawn(pipeline, spec, indices, resolution)]
    return pictures


def _drawn(pipeline: Any, spec: ValidationSpec, indices: Sequence[int], resolution: int) -> list[Image.Image]:
    return pipeline(
        [spec.prompts[index] for index in indices],
        width=resolution,
        height=resolution,
        generator=[torch.Generator("cpu").manual_seed(spec.seed + index) for index in indices],
        guidance_scale=spec.guidance_scale,
        num_inference_steps=spec.num_inference_steps,
    ).images


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
