"""Families, methods and optimizers of a spec are names of the catalog, and an extension's are among them."""

from typing import Any

import pytest

from lorafleet import spec
from lorafleet.catalog import FAMILIES, LOSSES, METHODS, OPTIMIZERS
from lorafleet.catalog.registry import EXTENSIONS_ENV
from lorafleet.errors import InvalidSpec
from tests.lorafleet.specs import SMALLEST

FIELDS = (
    ("base_model", "family", FAMILIES),
    ("adapter", "method", METHODS),
    ("training", "optimizer", OPTIMIZERS),
    ("objective", "loss", LOSSES),
)


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(EXTENSIONS_ENV, "tests.lorafleet.extension")


def fields(**sections: Any) -> dict[str, Any]:
    return {**SMALLEST, **sections, "base_model": {**SMALLEST["base_model"], **sections.get("base_model", {})}}


def complaints(**sections: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(fields(**sections))
    return {violation.field: violation.message for violation in caught.value.violations}


@pytest.mark.parametrize(("section", "field", "registry"), FIELDS)
def test_an_unknown_name_is_told_what_there_is(section: str, field: str, registry: Any):
    [(where, message)] = complaints(**{section: {field: "unheard"}}).items()
    assert where == f"{section}.{field}"
    assert all(repr(name) in message for name in registry.names())
    assert message.endswith("(got 'unheard')")


@pytest.mark.parametrize(("section", "field", "registry"), FIELDS)
def test_what_is_no_word_is_refused_as_one(section: str, field: str, registry: Any):
    assert "string" in complaints(**{section: {field: 7}})[f"{section}.{field}"]


def test_an_extensions_names_are_taken_and_shown(monkeypatch: pytest.MonkeyPatch):
    own = OPTIMIZERS.names()
    monkeypatch.setenv(EXTENSIONS_ENV, "tests.lorafleet.extension")
    assert spec.parse(fields(training={"optimizer": "whole"})).training.optimizer == "whole"
    shown = spec.json_schema()["$defs"]["OptimizationSpec"]["properties"]["optimizer"]
    assert set(shown["enum"]) - set(own) == {"on_gpu", "whole"}
    assert set(own) < set(shown["enum"])


def test_an_extensions_names_are_unknown_without_it():
    assert "or 'prodigy' (got 'whole')" in complaints(training={"optimizer": "whole"})["training.optimizer"]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_optimizer_that_needs_whole_tensors_is_not_cut(extended: None, stage: int):
    message = complaints(training={"optimizer": "whole"}, cluster={"zero_stage": stage})["training.optimizer"]
    assert '"whole"' in message
    assert f"cluster.zero_stage {stage}" in message


def test_an_optimizer_without_its_gpu_is_refused(extended: None):
    message = complaints(training={"optimizer": "on_gpu"})["training.optimizer"]
    assert '"on_gpu"' in message
    assert "cluster.gpus_per_worker is 0" in message
    assert spec.parse(fields(training={"optimizer": "on_gpu"}, cluster={"gpus_per_worker": 0.5}))


def test_adapters_sit_where_the_family_says_unless_the_spec_does(extended: None):
    narrow = {"family": "narrow"}
    assert spec.parse(fields(base_model={"family": "sd1"})).adapter.target_modules == ("to_q", "to_k", "to_v", "to_out.0")
    assert spec.parse(fields(base_model=narrow)).adapter.target_modules == ("qkv",)
    assert spec.parse(fields(base_model=narrow, adapter={"target_modules": ["to_q"]})).adapter.target_modules == ("to_q",)
    written = spec.parse(fields(base_model=narrow)).model_dump(mode="json")
    assert spec.parse(written) == spec.parse(fields(base_model=narrow))


def test_a_name_that_a_registry_lacks_is_told_what_there_is():
    with pytest.raises(LookupError, match="no optimizer 'sophia' in this version; there is adafactor, adamw, "):
        OPTIMIZERS.get("sophia")


def test_a_spec_without_family_takes_its_bases_defaults_once_it_is_known(extended: None):
    asked = spec.parse(fields())
    assert asked.adapter.target_modules == ()
    assert asked.on("narrow").adapter.target_modules == ("qkv",)
    assert asked.on("sd1") == spec.parse(fields(base_model={"family": "sd1"}))
    chosen = spec.parse(fields(adapter={"target_modules": ["to_q"]}))
    assert chosen.on("narrow").adapter.target_modules == ("to_q",)
    assert "family" not in asked.model_dump(mode="json")["base_model"], "a trainer that does not know the field takes its own default"
    assert "target_modules" not in asked.model_dump(mode="json")["adapter"]
    assert spec.parse(asked.model_dump(mode="json")) == asked


def test_a_family_that_turns_out_not_to_take_what_was_asked_is_refused():
    asked = spec.parse(fields(base_model={"clip_skip": 2}))
    assert asked.on("sd1").base_model.clip_skip == 2
    with pytest.raises(InvalidSpec, match=r"base_model\.clip_skip: is not known to sdxl"):
        asked.on("sdxl")
