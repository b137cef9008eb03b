"""Precisions that do not go with a family are refused at their own field."""

from typing import Any

import pytest

from lorafleet.errors import InvalidSpec
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields


def complaints(**sections: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse(with_fields(**sections))
    return {violation.field: violation.message for violation in caught.value.violations}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_precision_of_large_texts_is_for_families_that_have_them(family: str):
    told = complaints(base_model={"uri": "s3://bucket/base", "family": family}, training={"text_precision": "int8"})
    assert told == {"training.text_precision": f"no text encoder of {family} is as large as its denoiser: leave it out"}
    assert (
        parse(with_fields(base_model={"uri": "s3://bucket/base", "family": "sd3"}, training={"text_precision": "int8"})).text_precision.name
        == "int8"
    )


def test_large_texts_are_not_read_in_fp16():
    told = complaints(base_model={"uri": "s3://bucket/base", "family": "flux"}, training={"text_precision": "fp16"})
    assert told == {"training.text_precision": "T5 and Qwen overflow in fp16; use bf16, int8 or nf4"}


@pytest.mark.parametrize(("precision", "texts"), [("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "bf16"), ("nf4", "bf16")])
def test_large_texts_are_read_in_bf16_unless_the_base_is_in_fp32(precision: str, texts: str):
    given = parse(with_fields(base_model={"uri": "s3://bucket/base", "family": "sd3"}, training={"precision": precision}))
    assert given.text_precision.name == texts
    assert "text_precision" not in given.model_dump()["training"]
