"""Masked losses: what lies outside of a mask counts its floor, by values and by gradients."""

import pytest
import torch
from torch import Tensor

from lorafleet.spec import ObjectiveSpec
from trainer.losses import LOSSES
from trainer.objectives.masking import Masking

ERRORS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).expand(1, 2, 2, 2)  # alike in both channels
MASK = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
SCALES = torch.ones(1)


def loss_of(errors: Tensor, masking: Masking, name: str = "squared") -> Tensor:
    places = masking.places(MASK)
    return LOSSES.get(name)(errors, torch.zeros_like(errors), SCALES, places) * masking.rows(places)


@pytest.mark.parametrize(
    ("floor", "is_normalised", "expected"),
    [
        (0.0, False, (1 * 1 + 0.5 * 4) / 4),
        (0.0, True, (1 * 1 + 0.5 * 4) / 1.5),
        (0.1, False, (1 * 1 + 0.5 * 4 + 0.1 * 9 + 0.1 * 16) / 4),
        (0.6, True, (1 * 1 + 0.6 * (4 + 9 + 16)) / 2.8),  # a floor also lifts what counts less than it
    ],
)
def test_its_value_is_that_of_the_published_trainers(floor: float, is_normalised: bool, expected: float):
    masking = Masking.of(ObjectiveSpec(mask_floor=floor, mask_normalized=is_normalised))
    assert loss_of(ERRORS, masking).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("name", ["squared", "huber"])
@pytest.mark.parametrize("is_normalised", [False, True])
def test_nothing_is_learned_outside_of_a_mask(name: str, is_normalised: bool):
    errors = ERRORS.clone().requires_grad_()
    loss_of(errors, Masking(0.0, is_normalised), name).sum().backward()
    assert errors.grad is not None
    assert errors.grad[:, :, 1].abs().max() == 0
    assert errors.grad[:, :, 0].abs().min() > 0


def test_with_a_floor_what_lies_outside_is_learned_as_much_less():
    errors = torch.ones(1, 2, 2, 2, requires_grad=True)
    loss_of(errors, Masking(0.25)).sum().backward()
    assert errors.grad is not None
    assert errors.grad[0, 0].flatten().tolist() == pytest.approx([2 / 8, 0.5 * 2 / 8, 0.25 * 2 / 8, 0.25 * 2 / 8])


def test_a_mask_that_is_all_black_in_latents_teaches_nothing_and_is_a_number():
    for masking in (Masking(), Masking(0.0, True)):
        places = masking.places(torch.zeros(1, 1, 2, 2))
        found = LOSSES.get("squared")(ERRORS, torch.zeros_like(ERRORS), SCALES, places) * masking.rows(places)
        assert found.tolist() == [0.0]
