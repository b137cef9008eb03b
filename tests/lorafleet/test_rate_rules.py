"""Where tensors cannot have rates of their own, a spec that wants them is refused at its field."""

from typing import Any

import pytest

from lorafleet.errors import InvalidSpec
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields


def complaints(**sections: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_fields(**sections))
    return {violation.field: violation.message for violation in caught.value.violations}


def test_what_finds_one_rate_has_no_two():
    """pytorch-optimizer's Prodigy takes the rate of its first group for all."""
    message = complaints(training={"optimizer": "prodigy", "learning_rate": 1.0, "lora_plus_ratio": 16.0})["training.lora_plus_ratio"]
    assert message == '"prodigy" finds one rate for the whole adapter: leave it out'


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_is_cut_has_one_rate(stage: int):
    found = complaints(training={"lora_plus_ratio": 16.0}, cluster={"zero_stage": stage})
    assert f"cluster.zero_stage {stage} cuts them" in found["training.lora_plus_ratio"]


@pytest.mark.parametrize("ratio", [0.5, -1, 1001])
def test_a_ratio_raises(ratio: float):
    assert list(complaints(training={"lora_plus_ratio": ratio})) == ["training.lora_plus_ratio"]


def test_what_is_unset_is_left_out_of_what_is_stored():
    assert "lora_plus_ratio" not in parse(with_fields()).model_dump()["training"]
