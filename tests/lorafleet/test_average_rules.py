"""Where no moving average can be kept, or none is, a spec that wants it is refused at its field."""

from typing import Any

import pytest

from lorafleet.errors import InvalidSpec
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields


def complaints(**sections: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_fields(**sections))
    return {violation.field: violation.message for violation in caught.value.violations}


def test_what_averages_by_itself_has_no_second_average():
    training = {"optimizer": "adamw_schedule_free", "lr_scheduler": "constant", "ema_decay": 0.99}
    assert "averages what it trains by itself" in complaints(training=training)["training.ema_decay"]
    assert parse(with_fields(training={"optimizer": "prodigy", "ema_decay": 0.99}))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_part_of_an_adapter_has_no_average(stage: int):
    message = complaints(training={"ema_decay": 0.99}, cluster={"zero_stage": stage})["training.ema_decay"]
    assert f"cluster.zero_stage {stage} cuts them" in message


def test_an_average_that_is_not_kept_is_not_given():
    assert complaints(output={"weights": "ema"}) == {"output.weights": '"ema" needs training.ema_decay, which keeps the average'}
    for weights, given in (("ema", True), ("trained", False)):
        spec = parse(with_fields(output={"weights": weights}, training={"ema_decay": 0.99}))
        assert spec.gives_average is given


def test_it_is_given_where_it_is_kept():
    assert parse(with_fields(training={"ema_decay": 0.99})).gives_average
    assert not parse(with_fields()).gives_average


@pytest.mark.parametrize("decay", [0, 1, -0.1])
def test_a_decay_is_a_share(decay: float):
    assert "training.ema_decay" in complaints(training={"ema_decay": decay})


def test_what_is_unset_is_left_out_of_what_is_stored():
    stored = parse(with_fields()).model_dump()
    assert "ema_decay" not in stored["training"]
    assert "weights" not in stored["output"]
