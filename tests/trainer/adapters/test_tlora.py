"""T-LoRA: a row has the ranks that its noise leaves it, as the denoiser is told of it, by whoever calls it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorafleet import spec
from lorafleet.catalog import FAMILIES
from tests.trainer.adapters.test_adapters import filled_bank
from tests.trainer.families.rows import ROWS
from trainer.adapters.bank import ActiveSlots
from trainer.adapters.methods.tlora import kept_ranks
from trainer.adapters.model import PackModel
from trainer.families import family

TARGETS = ("linear", "conv")


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.linear = nn.Linear(6, 5)

    def forward(self, x: Tensor, timestep: Any, text: Tensor | None = None) -> Tensor:
        return self.linear(self.conv(x).flatten(2).mT)


def denoiser() -> Any:
    torch.manual_seed(0)
    return Denoiser().double().requires_grad_(False)


def model() -> PackModel:
    return PackModel(family("sd1"), {"unet": denoiser()}, trains_text=False).double()


def adapter(min_rank: int | None = None) -> spec.AdapterSpec:
    return spec.AdapterSpec(method="tlora", rank=8, alpha=4.0, min_rank=min_rank, target_modules=TARGETS)


def expected(row: dict[str, Tensor], x: Tensor, rank: int) -> Tensor:
    """LoRA with the first ranks alone, written out."""
    plain = denoiser()
    a, b = (row[f"unet.conv.lora_{role}.weight"] for role in "AB")
    h = plain.conv(x) + 0.5 * F.conv2d(F.conv2d(x, a[:rank], padding=1), b[:, :rank])
    h, a, b = h.flatten(2).mT, *(row[f"unet.linear.lora_{role}.weight"] for role in "AB")
    return plain.linear(h) + 0.5 * (h @ a[:rank].mT) @ b[:, :rank].mT


@pytest.mark.parametrize(
    ("noise", "least", "number"),
    # floor((1 - noise) (8 - least)) + least
    [(0.0, 1, 8), (0.1, 1, 7), (0.5, 1, 4), (0.9, 1, 1), (1.0, 1, 1), (0.0, 4, 8), (0.5, 4, 6), (1.0, 4, 4), (1.0, 8, 8), (0.25, 4, 7)],
)
def test_ranks_fall_with_noise(noise: float, least: int, number: int):
    kept = kept_ranks(torch.tensor([noise]), 8, least)
    assert kept.tolist() == [[1.0] * number + [0.0] * (8 - number)]


def test_each_row_of_a_pass_has_its_own():
    of = model()
    bank, rows = filled_bank(of, [adapter(), adapter()])
    x, times = torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.tensor([0, 999, 500, 250, 0])
    with of.serving([ActiveSlots(bank, [0, 1], 0, 2)]):
        out = of.get_submodule("unet")(x, times, None)
    for row, (slot, rank) in enumerate([(0, 8), (0, 1), (1, 4), (1, 6)]):
        assert torch.allclose(out[row : row + 1], expected(bank.layout.named(rows[slot]), x[row : row + 1], rank)), row
    assert torch.allclose(out[4:], denoiser()(x[4:], 0))
    out.pow(2).sum().backward()
    assert bank.flat.grad is not None
    gradient = bank.layout.named(bank.flat.grad[1])["unet.linear.lora_A.weight"]
    assert gradient[:6].abs().sum(1).gt(0).all()
    assert not gradient[6:].any(), "what no row had learns nothing"


@pytest.mark.parametrize("told", [500, torch.tensor(500), torch.tensor([500.0]), torch.full((4,), 500)], ids=str)
def test_a_pipeline_that_calls_the_denoiser_alone_is_heard_too(told: Any):
    """It says one time for all rows, in a batch that guidance doubles."""
    of = model()
    bank, (row,) = filled_bank(of, [adapter(4)])
    x = torch.randn(4, 4, 3, 3, dtype=torch.float64)
    with of.serving([ActiveSlots(bank, [0])]):
        for given in ({"timestep": told}, {}):
            out = of.get_submodule("unet")(x, **given) if given else of.get_submodule("unet")(x, told)
            assert torch.allclose(out, expected(bank.layout.named(row), x, 6))
    assert not of.get_submodule("unet")._forward_pre_hooks, "nothing is left on a denoiser that others use"


def test_nobody_else_is_hooked():
    of = model()
    bank, _ = filled_bank(of, [spec.AdapterSpec(rank=2, target_modules=TARGETS)])
    with of.serving([ActiveSlots(bank, [0])]):
        assert not of.get_submodule("unet")._forward_pre_hooks


@pytest.mark.parametrize("name", [name for name in FAMILIES.names() if not name.startswith("toy")])
def test_every_denoiser_is_told_its_noise_as_its_facts_say(name: str):
    """What predict tells it at both ends of the schedule, of times from 0 to 1000."""
    heard: list[float] = []

    class Heard(Exception):
        pass

    class Listens(nn.Module):
        config = type("Config", (), {"guidance_embeds": False, "joint_attention_dim": 8})

        def forward(self, *given: Any, **named: Any) -> None:
            told = named["timestep"] if "timestep" in named else given[1]
            heard.extend(told.tolist())
            raise Heard

    of = family(name)
    conditioning = {key: torch.ones(2, 3, 8) for key in ("text", "clip", "t5", "pooled", "time_ids")}
    conditioning |= {key: torch.ones(2, 3) for key in ("present", "seen")}
    with pytest.raises(Heard):
        of.predict({of.facts.denoiser.name: Listens()}, torch.zeros(2, 4, 4, 4), torch.tensor([0.0, 1000.0]), conditioning)
    assert tuple(heard) == pytest.approx(of.facts.told_noise)
    assert name in {*ROWS, "sd1", "sd2", "sdxl"}
