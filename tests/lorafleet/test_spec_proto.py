"""The spec on the wire and on disk is the same spec."""

from typing import Any, get_args

import pytest
import yaml
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from pydantic import BaseModel

from lorafleet import generation_proto, spec, spec_proto
from lorafleet.errors import InvalidSpec
from lorafleet.v1 import generation_service_pb2, spec_pb2
from lorafleet.work.generation import ServedGeneration, parse
from tests.lorafleet.specs import GOOD_FIELDS


@given(GOOD_FIELDS)
def test_spec_survives_the_wire(fields: dict[str, Any]) -> None:
    parsed = spec.parse(fields)
    assert spec_proto.from_proto(spec_proto.to_proto(parsed)) == parsed
    sent = spec_pb2.TrainingSpec.FromString(spec_proto.to_proto(parsed).SerializeToString())
    assert spec_proto.from_proto(sent) == parsed


@given(GOOD_FIELDS)
def test_spec_survives_yaml(fields: dict[str, Any]) -> None:
    parsed = spec.parse(fields)
    assert spec.parse(yaml.safe_load(yaml.safe_dump(parsed.model_dump(mode="json", exclude_none=True)))) == parsed


@given(GOOD_FIELDS)
def test_what_a_message_holds_is_a_spec_file(fields: dict[str, Any]) -> None:
    parsed = spec.parse(fields)
    assert spec.parse(spec_proto.fields(spec_proto.to_proto(parsed))) == parsed


def test_unset_field_takes_the_default_and_zero_does_not() -> None:
    message = spec_pb2.TrainingSpec(base_model={"uri": "file:///b"}, dataset={"uri": "file:///d"})
    assert spec_proto.from_proto(message).adapter.rank == 16
    message.adapter.rank = 0
    with pytest.raises(InvalidSpec, match=r"adapter\.rank"):
        spec_proto.from_proto(message)


def test_proto_has_the_fields_of_the_spec_and_no_others() -> None:
    assert proto_fields(spec_pb2.TrainingSpec.DESCRIPTOR) == model_fields(spec.Spec)


def test_a_generation_has_on_the_wire_the_fields_of_its_spec():
    """`resolved` is the service's own; a set of adapters is a message on the wire."""
    there = {name for name in ServedGeneration.model_fields if name != "resolved"}
    assert {field.name for field in generation_service_pb2.GenerationSpec.DESCRIPTOR.fields} == there
    asked = parse(
        {"base_model": {"uri": "file:///b"}, "prompts": ["a fox"], "adapters": [[], [{"uri": "adapters/fox@best", "weight": 0.5}]]}
    )
    sent = generation_service_pb2.GenerationSpec.FromString(generation_proto.to_proto(asked).SerializeToString())
    assert generation_proto.from_proto(sent) == asked


def proto_fields(message: Descriptor) -> dict[str, Any]:
    return {field.name: proto_fields(field.message_type) if is_part(field) else None for field in message.fields}


def is_part(field: Any) -> bool:
    return field.message_type is not None and not field.message_type.GetOptions().map_entry


def model_fields(model: type[BaseModel]) -> dict[str, Any]:
    def inner(annotation: Any) -> Any:
        models = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type) and issubclass(each, BaseModel)]
        return model_fields(models[0]) if models else None

    return {name: inner(field.annotation) for name, field in model.model_fields.items()}
