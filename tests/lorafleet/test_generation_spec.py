"""A request for pictures: every mistake in it is told at once, and large grids are refused with their arithmetic."""

from typing import Any

import pytest

from lorafleet import generation_spec
from lorafleet.errors import InvalidInput

BASE = {"uri": "file:///models/base"}
A, B = {"uri": "file:///a.safetensors"}, {"uri": "file:///b.safetensors", "weight": 0.5}


def request(**fields: Any) -> generation_spec.GenerationSpec:
    return generation_spec.parse({"base_model": BASE, "prompts": ["a cat"], **fields})


def wrong(**fields: Any) -> list[str]:
    with pytest.raises(InvalidInput) as raised:
        request(**fields)
    return str(raised.value).splitlines()


def test_one_prompt_is_one_picture_of_the_base_alone():
    assert request().num_pictures == 1
    assert list(request().variants) == [((), 1.0)]


def test_sets_are_drawn_at_each_weight_and_the_base_alone_once():
    spec = request(adapters=[[], [A], [A, B]], weights=[0.5, 1.0], seeds=[1, 2, 3], prompts=["a", "b"])
    assert spec.num_pictures == 5 * 3 * 2
    assert [(len(each), weight) for each, weight in spec.variants] == [(0, 0.5), (1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0)]


def test_large_grids_are_refused_with_their_arithmetic():
    (told,) = wrong(adapters=[[], [A], [B]], weights=[0.5, 1.0], seeds=list(range(2001)))
    assert told.endswith(
        "(2 adapter sets x 2 weights + the base alone) x 1 prompts x 2001 seeds = 10,005 pictures; at most 10,000 are drawn at a time"
    )


def test_all_that_is_wrong_is_told_at_once():
    told = wrong(
        prompts=["a" * 10_000, "b"], num_inference_steps=0, scheduler="eulr", seeds=[1, 1], negative_prompts=["x", "y", "z"], widht=1
    )
    assert told[0] == "prompts[0]: String should have at most 2000 characters"
    assert any(each.startswith("num_inference_steps: ") for each in told)
    assert any(each.startswith("scheduler: there is no 'eulr'; there is ddim, ddpm") for each in told)
    assert "seeds: 1 is there twice" in told
    assert "widht: unknown field; close: width" in told


def test_negative_prompts_are_one_for_all_or_one_for_each():
    assert request(negative_prompts=["x"], prompts=["a", "b"]).negative_of(1) == "x"
    assert request(negative_prompts=["x", "y"], prompts=["a", "b"]).negative_of(1) == "y"
    assert request().negative_of(0) == ""
    assert wrong(negative_prompts=["x", "y"])[0].startswith("negative_prompts: 2 for 1 prompts")


def test_places_are_uris_and_weights_numbers():
    told = wrong(adapters=[[{"uri": "a.safetensors", "weight": float("nan")}]])
    assert told[0].startswith("adapters[0][0].uri: 'a.safetensors' is not a store URI")
    assert told[1].startswith("adapters[0][0].weight: ")


def test_thousands_on_an_axis_are_looked_up_and_not_compared_with_each_other():
    """A server reads them while its callers wait."""
    compared: list[object] = []

    class Each:
        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return self is other

        __hash__ = object.__hash__

    axis = tuple(Each() for _ in range(1000))
    assert generation_spec.GenerationSpec._has_each_once(axis) == axis
    assert len(compared) < len(axis)
