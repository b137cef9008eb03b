"""What `training.compile` does not go with is refused where the spec is read, with its reason; at the default it is not written."""

from typing import Any

import pytest

from lorafleet import spec
from lorafleet.errors import InvalidSpec

FIELDS: dict[str, dict[str, Any]] = {"base_model": {"uri": "file:///base", "family": "sd1"}, "dataset": {"uri": "file:///pictures"}}


def asked(compile: str, **parts: dict[str, Any]) -> spec.Spec:
    return spec.parse({**FIELDS, **parts, "training": {**parts.get("training", {}), "compile": compile}})


def test_the_default_is_left_out_of_the_written_spec():
    assert "compile" not in asked("none").model_dump()["training"]
    assert asked("graph").model_dump()["training"]["compile"] == "graph"


@pytest.mark.parametrize(
    ("compile", "parts", "why"),
    [
        ("blocks", {"adapter": {"dropout": 0.1}}, "leave adapter.dropout out"),
        ("graph", {"adapter": {"overrides": [{"pattern": "to_q", "dropout": 0.1}]}}, "leave adapter.overrides[0].dropout out"),
        ("blocks", {"cluster": {"zero_stage": 3}}, "cluster.zero_stage 3 gathers each layer's weights"),
        ("graph", {"cluster": {"zero_stage": 1}}, "cluster.zero_stage 1 puts weights and gradients elsewhere"),
        ("graph", {"adapter": {"text_encoder": True}}, "leave adapter.text_encoder out, or use blocks"),
        ("graph", {"textual_inversion": {"tokens": [{"token": "<s1>"}]}}, "use blocks for new tokens"),
        ("graph", {"training": {"gradient_checkpointing": True}}, "use blocks with it"),
        ("graph", {"training": {"precision": "nf4"}}, "would record the kernels of nf4"),
    ],
)
def test_what_contradicts_it_is_refused(compile: str, parts: dict[str, Any], why: str):
    with pytest.raises(InvalidSpec) as error:
        asked(compile, **parts)
    (violation,) = error.value.violations
    assert violation.field == "training.compile"
    assert why in violation.message
    asked("none", **parts)


@pytest.mark.parametrize(
    "parts",
    [
        {"cluster": {"zero_stage": 2}},
        {"adapter": {"text_encoder": True}},
        {"textual_inversion": {"tokens": [{"token": "<s1>"}]}},
        {"training": {"gradient_checkpointing": True}},
        {"training": {"precision": "nf4"}},
    ],
)
def test_blocks_are_compiled_with_what_no_graph_holds(parts: dict[str, Any]):
    asked("blocks", **parts)
