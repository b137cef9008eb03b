"""What a job writes beside its adapter is refused where it contradicts the spec, and left out of specs that do not ask for it."""

from typing import Any

import pytest

from lorafleet import adapter_readers
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields
from tests.lorafleet.test_objective_rules import complaints


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"adapter": {"method": "lora"}}, '"lora" is a plain LoRA already'),
        ({"adapter": {"method": "rslora"}}, '"rslora" is a plain LoRA already'),
        ({"adapter": {"method": "oft"}, "training": {"precision": "nf4"}}, "training.precision nf4 has not"),
        ({"adapter": {"method": "loha"}, "cluster": {"zero_stage": 3}}, "cluster.zero_stage 3 cuts"),
    ],
    ids=["lora", "rslora", "oft-quantised", "cut"],
)
def test_a_plain_lora_that_cannot_be_is_refused_at_its_field(sections: dict[str, Any], says: str):
    ((found, message),) = complaints(**sections, output={"plain_lora_rank": 8}).items()
    assert found == "output.plain_lora_rank"
    assert says in message


def test_of_tokens_alone_there_is_none():
    tokens = {"tokens": [{"token": "<s1>"}], "alone": True}
    found = complaints(dataset={"uri": "file:///a", "trigger_phrase": "<s1>"}, textual_inversion=tokens, output={"plain_lora_rank": 8})
    assert found == {"textual_inversion.alone": "trains no adapter, of which output.plain_lora_rank is: leave one of both out"}


@pytest.mark.parametrize("method", ["dora", "loha", "lokr", "oft", "tlora"])
def test_a_plain_lora_beside_what_programs_misread_is_taken(method: str):
    assert parse(with_fields(adapter={"method": method}, output={"plain_lora_rank": 8})).output.plain_lora_rank == 8


def test_what_only_adds_may_be_quantised():
    found = parse(with_fields(adapter={"method": "loha"}, training={"precision": "nf4"}, output={"plain_lora_rank": 8}))
    assert found.output.plain_lora_rank == 8


def test_a_spec_without_it_does_not_name_it():
    assert "plain_lora_rank" not in parse(with_fields()).model_dump(mode="json")["output"]


def test_of_a_method_that_programs_misread_it_is_told_until_it_is_asked_for():
    named, asked = (parse(with_fields(adapter={"method": "dora"}, output=output)) for output in ({}, {"plain_lora_rank": 8}))
    told = "output.plain_lora_rank: writes the nearest plain LoRA beside it, which every program reads"
    assert told in adapter_readers.hints(named)
    assert told not in adapter_readers.hints(asked)
