"""What a schedule does not go by, or cannot be, is refused at its own field."""

from typing import Any

import pytest

from lorafleet.errors import InvalidSpec
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields


def complaints(**training: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_fields(training=training))
    return {violation.field: violation.message for violation in caught.value.violations}


@pytest.mark.parametrize("scheduler", ["constant", "linear", "cosine", "polynomial"])
def test_cycles_are_those_of_restarts(scheduler: str):
    message = complaints(lr_scheduler=scheduler, lr_cycles=2)["training.lr_cycles"]
    assert message == f'is nothing that "{scheduler}" goes by; set training.lr_scheduler to "cosine_with_restarts", or leave it out'


@pytest.mark.parametrize("field", ["lr_power", "lr_end"])
@pytest.mark.parametrize("scheduler", ["constant", "cosine", "cosine_with_restarts"])
def test_powers_and_ends_are_of_polynomials(scheduler: str, field: str):
    assert "polynomial" in complaints(lr_scheduler=scheduler, **{field: 1e-6})[f"training.{field}"]


def test_all_that_contradicts_a_schedule_is_told_at_once():
    assert list(complaints(lr_cycles=2, lr_power=1.0, lr_end=0.0)) == ["training.lr_cycles", "training.lr_power", "training.lr_end"]


def test_every_cycle_has_a_step():
    message = complaints(lr_scheduler="cosine_with_restarts", lr_cycles=11, max_steps=30, lr_warmup_steps=20)["training.lr_cycles"]
    assert message == "11 cycles do not fit into the 10 steps after the warm-up"
    assert parse(with_fields(training={"lr_scheduler": "cosine_with_restarts", "lr_cycles": 10, "max_steps": 30, "lr_warmup_steps": 20}))


@pytest.mark.parametrize(("rate", "end"), [(1e-4, 1e-4), (1e-4, 1e-3), (1e-8, None)])
def test_a_rate_falls(rate: float, end: float | None):
    given = {} if end is None else {"lr_end": end}
    assert list(complaints(lr_scheduler="polynomial", learning_rate=rate, **given)) == ["training.lr_end"]


@pytest.mark.parametrize("scheduler", ["cosine_with_restarts", "polynomial"])
def test_what_averages_wants_no_schedule(scheduler: str):
    assert "averages" in complaints(optimizer="adamw_schedule_free", lr_scheduler=scheduler)["training.lr_scheduler"]


def test_what_is_unset_is_left_out_of_what_is_stored():
    stored = parse(with_fields(training={"lr_scheduler": "cosine_with_restarts", "lr_cycles": 2})).model_dump()["training"]
    assert stored["lr_cycles"] == 2
    assert {"lr_power", "lr_end"}.isdisjoint(stored)
