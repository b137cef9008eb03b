"""`objective.latents: sampled`: latents are drawn from the autoencoder's posterior, by keys, in each step anew."""

from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor

from trainer.data.sampler import share
from trainer.families.flux2 import FAMILY as FLUX2
from trainer.families.qwen_image import FAMILY as QWEN_IMAGE
from trainer.families.sd1 import FAMILY as SD1
from trainer.keyed import Key
from trainer.objectives.draws import draws, sampled

KEY = Key(seed=3, style="s")
MODE, DEVIATION = torch.full((4, 64, 64), 2.0), torch.full((4, 64, 64), 0.5)


def drawn(step: int, batch: list[int], key: Key = KEY) -> Tensor:
    rows = len(batch)
    return sampled(MODE.expand(rows, -1, -1, -1), DEVIATION.expand(rows, -1, -1, -1), draws(batch, step), key)


def test_draws_have_the_posteriors_mean_and_deviation():
    found = drawn(0, [0])
    assert found.mean().item() == pytest.approx(2.0, abs=0.02)
    assert found.std().item() == pytest.approx(0.5, abs=0.02)


def test_each_step_picture_and_repeat_has_a_draw_of_its_own():
    first, again, other = drawn(0, [5, 5, 6])
    assert not torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, drawn(1, [5])[0])
    assert not torch.equal(first, drawn(0, [5], Key(seed=4, style="s"))[0])


@pytest.mark.parametrize("world_size", [1, 3])
def test_the_same_is_drawn_on_any_number_of_workers(world_size: int):
    batch = [0, 1, 2, 0, 1, 2]
    examples, whole = draws(batch, 7), drawn(7, batch)
    by_worker = [share(examples, rank=rank, world_size=world_size, micro_batch_size=1) for rank in range(world_size)]
    pieces = [by_worker[number % world_size][number // world_size] for number in range(len(batch))]
    for row, piece in zip(whole, pieces, strict=True):
        assert torch.equal(row, sampled(MODE[None], DEVIATION[None], piece, KEY)[0])


class Latents(NamedTuple):
    """An autoencoder's posterior, as diffusers gives it."""

    found: Tensor
    std: Tensor

    def mode(self) -> Tensor:
        return self.found


class Autoencoder:
    """One whose posterior is known."""

    device = "cpu"

    def __init__(self, shape: tuple[int, ...], **config: Any) -> None:
        self.config = type("Config", (), config)
        self.latent_dist = Latents(torch.full(shape, 3.0), torch.full(shape, 0.5))
        self.bn = type("Statistics", (), {"running_mean": torch.full((16,), 1.0), "running_var": torch.full((16,), 4.0)})

    def encode(self, pixels: Tensor) -> "Autoencoder":
        return self


@pytest.mark.parametrize(
    ("family", "vae", "mode", "deviation"),
    [
        (SD1, Autoencoder((1, 4, 2, 2), shift_factor=1.0, scaling_factor=0.2), 0.4, 0.1),
        (FLUX2, Autoencoder((1, 4, 2, 2), batch_norm_eps=0.0), 1.0, 0.25),
        (QWEN_IMAGE, Autoencoder((1, 2, 1, 2, 2), latents_mean=[1.0, 1.0], latents_std=[4.0, 4.0]), 0.5, 0.125),
    ],
)
def test_a_deviation_is_scaled_as_its_latents_are_and_never_moved(family: Any, vae: Any, mode: float, deviation: float):
    found = family.encode_pictures({"vae": vae}, [Image.new("RGB", (16, 16))])
    assert found.mode.unique().tolist() == pytest.approx([mode])
    assert found.deviation.unique().tolist() == pytest.approx([deviation])
    assert found.mode.shape == found.deviation.shape
