"""Translates a generation's spec to the wire and back: the same fields by the same names, but that a set of adapters is a message."""

from typing import Any

from lorafleet import spec_proto
from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.work.generation import ServedGeneration, parse

_APART = {"adapters", "resolved"}


def from_proto(message: pb.GenerationSpec) -> ServedGeneration:
    """The spec that a message carries. Raises InvalidSpec with every violation."""
    return parse(fields(message))


def to_proto(spec: ServedGeneration) -> pb.GenerationSpec:
    """The message of a spec, with every default filled in."""
    sets = [pb.AdapterSet(uses=[pb.AdapterUse(uri=use.uri, weight=use.weight) for use in each]) for each in spec.adapters]
    message = pb.GenerationSpec(adapters=sets, **spec.model_dump(exclude=_APART, exclude_none=True))
    message.cluster.profile = spec.cluster.profile  # left out of what is stored where it is the default
    return message


def fields(message: pb.GenerationSpec) -> dict[str, Any]:
    """The fields that are set, as plain values: what a file would hold."""
    plain = spec_proto.fields(message)
    if "adapters" in plain:
        plain["adapters"] = [each.get("uses", []) for each in plain["adapters"]]
    return plain
