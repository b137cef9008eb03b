"""What some layers have of their own is refused, where it cannot be, at its own field; all of it at once."""

from typing import Any

import pytest

from lorafleet.errors import InvalidSpec
from lorafleet.spec import AdapterSpec, parse
from lorafleet.spec_overrides import OverrideSpec
from tests.lorafleet.specs import with_fields


def complaints(*overrides: dict[str, Any], adapter: dict[str, Any] | None = None, **sections: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_fields(adapter={**(adapter or {}), "overrides": list(overrides)}, **sections))
    return {violation.field: violation.message for violation in caught.value.violations}


SDXL = {"uri": "file:///base", "family": "sdxl"}
FLUX = {"uri": "file:///base", "family": "flux"}


@pytest.mark.parametrize(
    ("override", "field", "says"),
    [
        ({"rank": 4}, "", "needs part or pattern"),
        ({"part": "unet", "pattern": "attn1", "rank": 4}, "", "and not both"),
        ({"pattern": "attn1"}, "", "changes nothing"),
        ({"pattern": "attn1", "rank": 0}, ".rank", "greater than or equal to 1"),
        ({"pattern": "(a+)+$", "rank": 4}, ".pattern", "is no pattern of a path"),
        ({"pattern": "attn[12]", "rank": 4}, ".pattern", "is no pattern of a path"),
        ({"part": "vae", "rank": 4}, ".part", "has no adapter; of any family"),
        ({"part": "text_encoder", "rank": 4}, ".part", "without adapter.text_encoder: set that, too"),
        ({"pattern": "attn1", "lr_cycles": 3}, ".lr_cycles", '"cosine" goes by'),
        ({"pattern": "attn1", "lr_scheduler": "polynomial", "lr_end": 1e-3}, ".lr_end", "is not below"),
        ({"pattern": "attn1", "lr_warmup_steps": 1001}, ".lr_warmup_steps", "do not fit into 1000 max_steps"),
        ({"pattern": "attn1", "rank": "4"}, ".rank", "valid integer"),
        ({"pattern": "attn1", "ranks": 4}, ".ranks", "unknown field"),
    ],
)
def test_what_is_wrong_with_one_is_told_at_its_field(override: dict[str, Any], field: str, says: str):
    found = complaints(override)
    assert list(found) == [f"adapter.overrides[0]{field}"]
    assert says in found[f"adapter.overrides[0]{field}"]


@pytest.mark.parametrize(
    ("adapter", "override", "field", "says"),
    [
        ({"method": "oft"}, {"rank": 1}, "rank", 'too small for "oft"'),
        ({"method": "oft"}, {"alpha": 2.0}, "alpha", 'nothing that "oft" goes by'),
        ({"initialization": "orthogonal"}, {"rank": 3}, "rank", "halves the rank, and the rank here, 3, is odd"),
    ],
)
def test_what_a_method_does_not_take_is_refused_of_some_layers_too(
    adapter: dict[str, Any], override: dict[str, Any], field: str, says: str
):
    ((where, told),) = complaints({"pattern": "attn1", **override}, adapter=adapter).items()
    assert where == f"adapter.overrides[0].{field}"
    assert says in told


def test_parts_are_the_familys():
    assert "unet may" in complaints({"part": "transformer", "rank": 4}, base_model=SDXL)["adapter.overrides[0].part"]
    trained = {"text_encoder": True}
    assert (
        "text_encoder_2" in complaints({"part": "text_encoder_2", "rank": 4}, adapter=trained, base_model=FLUX)["adapter.overrides[0].part"]
    )
    fields = {**trained, "overrides": [{"part": "text_encoder_2", "rank": 4}, {"part": "unet", "learning_rate": 1e-3}]}
    assert parse(with_fields(adapter=fields, base_model=SDXL))


def test_all_are_told_at_once():
    found = complaints(
        {"pattern": "attn1", "rank": 4},
        {"pattern": "attn1", "rank": 8},
        {"part": "text_encoder", "rank": 8},
        {"pattern": "attn2", "lr_end": 1e-6},
    )
    assert list(found) == ["adapter.overrides[1].pattern", "adapter.overrides[2].part", "adapter.overrides[3].lr_end"]


def test_what_finds_one_rate_has_no_others():
    found = complaints({"pattern": "attn1", "learning_rate": 1.0}, training={"optimizer": "prodigy", "learning_rate": 1.0})
    assert "one rate for the whole adapter" in found["adapter.overrides[0].learning_rate"]
    ranks = {"overrides": [{"pattern": "attn1", "rank": 4}]}
    assert parse(with_fields(adapter=ranks, training={"optimizer": "prodigy", "learning_rate": 1.0}))


def test_a_layers_rank_is_no_less_than_the_least():
    asked = {"method": "tlora", "min_rank": 4}
    assert complaints({"pattern": "attn1", "rank": 2}, adapter=asked) == {"adapter.overrides[0].rank": "2 is less than adapter.min_rank, 4"}


def test_what_is_resized_has_one_rank():
    asked = {"start": {"uri": "file:///a.safetensors", "resize": True}}
    assert "all layers of one rank" in complaints({"pattern": "attn1", "rank": 2}, adapter=asked)["adapter.overrides[0].rank"]
    assert parse(with_fields(adapter={**asked, "overrides": [{"pattern": "attn1", "alpha": 2.0}]}))


def test_what_averages_has_no_schedule_on_any_layer():
    training = {"optimizer": "adamw_schedule_free", "lr_scheduler": "constant"}
    assert "averages" in complaints({"pattern": "attn1", "lr_scheduler": "linear"}, training=training)["adapter.overrides[0].lr_scheduler"]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_is_cut_has_one_rate(stage: int):
    cut = {"zero_stage": stage}
    assert "cuts" in complaints({"pattern": "attn1", "learning_rate": 1e-3}, cluster=cut)["adapter.overrides[0].learning_rate"]
    assert parse(with_fields(adapter={"overrides": [{"pattern": "attn1", "rank": 4}]}, cluster=cut))


def test_of_a_layer_with_both_the_pattern_is_right_and_what_is_unset_is_inherited():
    overrides = (OverrideSpec(part="unet", rank=8, alpha=2.0), OverrideSpec(pattern="mid_block.*attn2", rank=4, dropout=0.1))
    adapter = AdapterSpec(rank=16, overrides=overrides)
    found = {path: adapter.at(path) for path in ("unet.mid_block.attentions.0.attn2.to_q", "unet.up_blocks.0.attn2.to_q", "text_encoder.a")}
    assert [(each.rank, each.alpha, each.dropout) for each in found.values()] == [(4, 2.0, 0.1), (8, 2.0, 0.0), (16, None, 0.0)]
    assert adapter.drops


@pytest.mark.parametrize(
    ("pattern", "path", "is_claimed"),
    [
        ("attn1", "unet.a.attn1.to_q", True),
        ("attn1", "unet.a.attn10.to_q", False),
        ("down_blocks.1", "unet.down_blocks.1.a", True),
        ("down_blocks.1", "unet.down_blocks.10.a", False),
        ("text_encoder", "text_encoder_2.a", False),
        ("to_*", "unet.a.to_out.0", True),
        ("unet.*to_q", "unet.a.b.to_q", True),
        ("*" * 60 + "x", "unet." + "a" * 500, False),
    ],
)
def test_a_pattern_occurs_between_dots(pattern: str, path: str, is_claimed: bool):
    assert OverrideSpec(pattern=pattern, rank=1).claims(path) is is_claimed


def test_none_are_left_out_of_what_is_stored():
    assert "overrides" not in parse(with_fields()).model_dump()["adapter"]


@pytest.mark.parametrize("section", ["training", "cluster", "base_model"])
def test_a_section_that_is_no_section_is_told_beside_overrides(section: str):
    given = {**with_fields(adapter={"overrides": [{"part": "unet", "rank": 4}]}), section: []}
    with pytest.raises(InvalidSpec) as caught:
        parse(given)
    assert section in {violation.field for violation in caught.value.violations}
