"""What an optimizer does not go by, or cannot do, is refused at its own field."""

from typing import Any

import pytest

from lorafleet.catalog import OPTIMIZERS
from lorafleet.errors import InvalidSpec
from lorafleet.spec import parse
from lorafleet.spec_cautions import cautions
from tests.lorafleet.specs import with_fields


def complaints(**sections: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_fields(**sections))
    return {violation.field: violation.message for violation in caught.value.violations}


@pytest.mark.parametrize("field", ["adam_beta1", "adam_beta2", "adam_epsilon"])
@pytest.mark.parametrize("optimizer", ["lion", "lion_8bit", "adafactor", "came"])
def test_what_is_adams_is_for_optimizers_of_its_kind(optimizer: str, field: str):
    assert complaints(training={"optimizer": optimizer, field: 0.5}) == {
        f"training.{field}": f'is nothing that "{optimizer}" goes by: leave it out'
    }
    assert parse(with_fields(training={"optimizer": "adamw_8bit", field: 0.5}))


def test_an_average_stands_in_for_a_schedule():
    message = complaints(training={"optimizer": "adamw_schedule_free"})["training.lr_scheduler"]
    assert '"cosine" lets the rate fall' in message
    assert parse(with_fields(training={"optimizer": "adamw_schedule_free", "lr_scheduler": "constant"}))


@pytest.mark.parametrize("name", OPTIMIZERS.names())
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_needs_whole_tensors_is_not_cut(name: str, stage: int):
    fields = with_fields(training={"optimizer": name, "lr_scheduler": "constant"}, cluster={"zero_stage": stage})
    if name in {"adamw", "lion"}:
        assert parse(fields)
    else:
        with pytest.raises(InvalidSpec, match=r"training\.optimizer.*zero_stage"):
            parse(fields)


@pytest.mark.parametrize(("optimizer", "rate", "number"), [("prodigy", 1e-4, 1), ("prodigy", 1.0, 0), ("adamw", 1e-4, 0)])
def test_a_rate_that_is_meant_for_another_optimizer_is_told(optimizer: str, rate: float, number: int):
    assert len(list(cautions(parse(with_fields(training={"optimizer": optimizer, "learning_rate": rate}))))) == number
