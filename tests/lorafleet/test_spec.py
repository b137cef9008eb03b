"""What is wrong with a spec is said in full, at once, and where it is."""

from typing import Any

import pytest
from pydantic import ValidationError

from lorafleet import spec
from lorafleet.errors import InvalidSpec
from tests.lorafleet.specs import SMALLEST, with_fields


def violations(fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(fields)
    return {violation.field: violation.message for violation in caught.value.violations}


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        (with_fields(adaptor={}), "adaptor", "close: adapter"),
        (with_fields(adapter={"ranks": 8}), "adapter.ranks", "close: rank"),
        (with_fields(adapter={"rank": "8"}), "adapter.rank", "valid integer"),
        (with_fields(adapter={"rank": True}), "adapter.rank", "valid integer"),
        (with_fields(adapter={"rank": 0}), "adapter.rank", "greater than or equal to 1"),
        (with_fields(adapter={"target_modules": []}), "adapter.target_modules", "at least 1"),
        (with_fields(adapter={"target_modules": ["to_q", "to q"]}), "adapter.target_modules[1]", "'to q'"),
        (with_fields(training={"max_steps": 0}), "training.max_steps", "greater than or equal to 1"),
        (with_fields(training={"learning_rate": -1e-4}), "training.learning_rate", "-0.0001"),
        (with_fields(training={"learning_rate": float("nan")}), "training.learning_rate", "finite"),
        (with_fields(training={"max_steps": 5, "lr_warmup_steps": 9}), "training.lr_warmup_steps", "9 warm-up steps do not fit into 5"),
        (with_fields(training={"precision": "fp8"}), "training.precision", "'bf16', 'fp16', 'fp32', 'int8' or 'nf4'"),
        (with_fields(cluster={"offload": "cpu"}), "cluster.offload", "zero_stage"),
        (with_fields(training={"precision": "nf4"}, cluster={"zero_stage": 3}), "training.precision", "zero_stage 3"),
        (with_fields(training={"precision": "int8"}, adapter={"method": "dora"}), "adapter.method", "use bf16, or lora"),
        (with_fields(cluster={"zero_stage": 4}), "cluster.zero_stage", "less than or equal to 3"),
        (with_fields(base_model={"uri": "file:///b", "family": "sd9"}), "base_model.family", "'sd1', 'sd2'"),
        (with_fields(base_model={"uri": "file:///b/v1-5.ckpt"}), "base_model.uri", "save it as .safetensors"),
        (with_fields(base_model={"uri": "file:///b", "vae_uri": "vae"}), "base_model.vae_uri", "s3://bucket/prefix"),
        (with_fields(base_model={"uri": "file:///b", "parts": {"vae": "s3://bucket/../c"}}), "base_model.parts.vae", "'..'"),
        (
            with_fields(base_model={"uri": "file:///b", "parts": {"../vae": "s3://bucket/c"}}),
            "base_model.parts.../vae",
            "no name of a part",
        ),
        (
            with_fields(base_model={"uri": "file:///b", "parts": {"wheel": "s3://bucket/c"}}),
            "base_model.parts",
            "wheel is no part of any family",
        ),
        (
            with_fields(base_model={"uri": "file:///b", "family": "sd1", "parts": {"text_encoder_2": "s3://bucket/c"}}),
            "base_model.parts",
            "text_encoder_2 is no part of sd1; there is scheduler, text_encoder, tokenizer, unet, vae",
        ),
        (
            with_fields(base_model={"uri": "file:///b", "vae_uri": "s3://bucket/c", "parts": {"vae": "s3://bucket/c"}}),
            "base_model.vae_uri",
            "given twice",
        ),
        (with_fields(dataset={"uri": "http://x/y"}), "dataset.uri", "s3://bucket/prefix"),
        (with_fields(dataset={"uri": "s3://bucket/../secrets"}), "dataset.uri", "'..'"),
        (with_fields(dataset={"uri": f"s3://bucket/{'x' * 1990}"}), "dataset.uri", "longer than 2000 bytes"),
        (with_fields(dataset={"uri": f"s3://bucket/{'猫' * 700}"}), "dataset.uri", "longer than 2000 bytes"),
        (with_fields(output={"formats": ["pickle"]}), "output.formats[0]", "'pickle'"),
        (with_fields(labels={"Team": "red"}), "labels.Team", "a-z"),
        (with_fields(training=None), "training", "valid dictionary"),
        ({"base_model": {"uri": "file:///b"}}, "dataset", "is required"),
        ([], "spec", "valid dictionary"),
    ],
)
def test_bad_field_is_named_with_what_is_wrong_and_what_to_do(fields: Any, field: str, says: str) -> None:
    found = violations(fields)
    assert list(found) == [field]
    assert says in found[field]


def test_every_violation_comes_at_once_whether_of_one_field_or_of_several() -> None:
    found = violations(
        {
            "base_model": {"uri": "file:///base", "famly": "sd1"},
            "adapter": {"rank": 0, "target_modules": ["to q", "to_k", ""]},
            "training": {"max_steps": 5, "lr_warmup_steps": 9, "learning_rate": -1, "precision": "fp8"},
            "cluster": {"offload": "cpu"},
            "labels": {"Team": "red", "ok": 1},
        }
    )
    assert sorted(found) == [
        "adapter.rank",
        "adapter.target_modules[0]",
        "adapter.target_modules[2]",
        "base_model.famly",
        "cluster.offload",
        "dataset",
        "labels.Team",
        "labels.ok",
        "training.learning_rate",
        "training.lr_warmup_steps",
        "training.precision",
    ]


def test_rule_over_two_fields_is_silent_where_one_of_them_is_broken_already() -> None:
    assert list(violations(with_fields(training={"max_steps": -5, "lr_warmup_steps": 3}))) == ["training.max_steps"]


def test_rules_over_several_fields_hold_for_specs_made_in_python() -> None:
    parts = {"base_model": spec.BaseModelSpec(uri="file:///b"), "dataset": spec.DatasetSpec(uri="file:///d")}
    with pytest.raises(ValidationError, match="do not fit") as caught:
        spec.Spec(**parts, training=spec.OptimizationSpec(max_steps=5, lr_warmup_steps=9), cluster=spec.ClusterSpec(offload="cpu"))
    assert caught.value.error_count() == 2


def test_message_lists_every_violation_below_their_count() -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(with_fields(adapter={"rank": 0}, labels={"X": ""}))
    assert str(caught.value).splitlines()[0] == "2 problems in the spec"
    assert len(str(caught.value).splitlines()) == 3


def test_global_batch_size_counts_workers_and_accumulation() -> None:
    parsed = spec.parse(with_fields(training={"micro_batch_size": 2, "gradient_accumulation_steps": 3}, cluster={"num_workers": 4}))
    assert parsed.global_batch_size == 24


def test_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        spec.parse(SMALLEST).adapter = spec.AdapterSpec()
