"""What of an objective contradicts itself, its training or its family is refused at its own field, all at once."""

from typing import Any

import pytest

from lorafleet.errors import InvalidSpec
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields


def complaints(**sections: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_fields(**sections))
    return {violation.field: violation.message for violation in caught.value.violations}


@pytest.mark.parametrize(
    ("sections", "field", "says"),
    [
        ({"objective": {"min_time": 0.5, "max_time": 0.5}}, "min_time", "no time lies between 0.5 and max_time, 0.5"),
        ({"objective": {"min_time": 0.9, "max_time": 0.1}}, "min_time", "no time lies between"),
        ({"objective": {"time_mean": 1.0}}, "time_mean", 'belongs to objective.time_density "logit_normal"'),
        ({"objective": {"time_deviation": 1.0, "time_density": "cubic"}}, "time_deviation", "set that, too"),
        ({"objective": {"huber_delta": 0.1}}, "huber_delta", 'nothing that the loss "squared" goes by'),
        ({"objective": {"huber_schedule": "snr"}}, "huber_schedule", "set objective.loss, or leave it out"),
        ({"objective": {"weighting": "snr"}, "training": {"min_snr_gamma": 5.0}}, "weighting", "two weightings: choose one"),
        ({"objective": {"pyramid_noise_discount": 0.5}, "training": {"noise_offset": 0.1}}, "pyramid_noise_discount", "choose one"),
        ({"objective": {"time_density": "sigmoid"}}, "time_density", "'uniform', 'logit_normal' or 'cubic'"),
        ({"objective": {"loss": "l3"}}, "loss", "'huber' or 'squared'"),
        ({"objective": {"mask_floor": 0.1}}, "mask_floor", "is of masks, and dataset.masks is none"),
        ({"objective": {"mask_normalized": True}}, "mask_normalized", "is of masks, and dataset.masks is none"),
    ],
)
def test_a_contradiction_is_told_at_its_field(sections: dict[str, Any], field: str, says: str):
    found = complaints(**sections)
    assert list(found) == [f"objective.{field}"]
    assert says in found[f"objective.{field}"]


def test_all_are_told_at_once():
    found = complaints(objective={"min_time": 0.7, "max_time": 0.2, "huber_delta": 0.2, "time_mean": 2.0, "weighting": "heavy"})
    assert list(found) == ["objective.weighting", "objective.min_time", "objective.time_mean", "objective.huber_delta"]


def test_an_objective_of_nothing_but_defaults_is_left_out_of_what_is_stored():
    """A trainer of before refuses what it does not know."""
    assert "objective" not in parse(with_fields(objective={"min_time": 0.0})).model_dump()
    assert parse(with_fields(objective={"min_time": 0.1})).model_dump()["objective"]["min_time"] == 0.1


@pytest.mark.parametrize("family", ["flux", "sd3", "zimage"])
def test_min_snr_is_for_flows_too(family: str):
    assert parse(with_fields(base_model={"uri": "file:///base", "family": family}, training={"min_snr_gamma": 5.0}))


SET = {"uri": "s3://pictures/fox", "regularization": {"uri": "s3://pictures/dogs", "weight": 1.0}}


@pytest.mark.parametrize(
    ("dataset", "field", "says"),
    [
        ({"regularization": {"uri": "s3://pictures/dogs"}}, "dataset.regularization.weight", "is required"),
        ({"regularization": {"uri": "s3://pictures/dogs", "weight": 0.0}}, "dataset.regularization.weight", "greater than 0"),
        ({"regularization": {"uri": "s3://pictures/fox/", "weight": 1.0}}, "dataset.regularization", "is the data set itself"),
        ({"regularization": {"uri": "dogs", "weight": 1.0}}, "dataset.regularization.uri", "is not a store URI"),
        ({"resolutions": [512, 768], "resolution": 512}, "dataset.resolutions", "stands beside dataset.resolution, 512"),
        ({"resolutions": [512, 768, 512]}, "dataset.resolutions", "has 512 twice"),
    ],
)
def test_a_contradiction_of_a_data_set_is_told_at_its_field(dataset: dict[str, Any], field: str, says: str):
    found = complaints(dataset={"uri": "s3://pictures/fox", **dataset})
    assert list(found) == [field]
    assert says in found[field]


def test_pictures_of_both_sets_count_in_a_step():
    spec = parse(with_fields(dataset=SET, training={"micro_batch_size": 2, "gradient_accumulation_steps": 3}))
    assert (spec.global_batch_size, spec.pictures_per_step) == (6, 12)
    assert spec.dataset.uris == [("uri", "s3://pictures/fox"), ("regularization.uri", "s3://pictures/dogs")]
