"""Layers of specs: what an item sets wins, what it leaves out comes from the defaults."""

import copy

import pytest

from lorafleet.batch.overlay import laid_over

DEFAULTS = {"training": {"max_steps": 10, "seed": 1}, "adapter": {"target_modules": ["to_q"]}, "labels": {"team": "red", "run": "1"}}


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ({}, DEFAULTS),
        ({"training": {"seed": 2}}, {**DEFAULTS, "training": {"max_steps": 10, "seed": 2}}),
        ({"labels": {"run": "2", "customer": "a"}}, {**DEFAULTS, "labels": {"team": "red", "run": "2", "customer": "a"}}),
        ({"adapter": {"target_modules": ["to_k"]}}, {**DEFAULTS, "adapter": {"target_modules": ["to_k"]}}),
        ({"dataset": {"uri": "file:///d"}}, {**DEFAULTS, "dataset": {"uri": "file:///d"}}),
        ({"training": "all"}, {**DEFAULTS, "training": "all"}),
    ],
)
def test_fields_are_laid_over_one_by_one(own, merged):
    assert laid_over(DEFAULTS, own) == merged


def test_neither_layer_is_changed():
    defaults, own = copy.deepcopy(DEFAULTS), {"training": {"seed": 2}}
    laid_over(defaults, own)
    assert (defaults, own) == (DEFAULTS, {"training": {"seed": 2}})
