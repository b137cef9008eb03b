"""Translates the spec to the wire and back: `lorafleet.v1.TrainingSpec` has the same fields by the same names, so this is a plain walk.

An unset proto field is left out, so that the spec's own default fills it in.
"""

from typing import Any

from google.protobuf.message import Message

from lorafleet import spec
from lorafleet.v1 import spec_pb2


def from_proto(message: spec_pb2.TrainingSpec) -> spec.Spec:
    """The spec that a message carries. Raises InvalidSpec with every violation."""
    return spec.parse(fields(message))


def to_proto(value: spec.Spec) -> spec_pb2.TrainingSpec:
    """The message of a spec, with every default filled in."""
    message = spec_pb2.TrainingSpec(**value.model_dump(exclude_none=True))
    message.cluster.profile = value.cluster.profile  # left out of what is stored where they are the defaults
    message.output.precision = value.output.precision
    return message


def fields(message: Message) -> dict[str, Any]:
    """The fields that are set, as plain values: what a spec file would hold."""
    plain: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if isinstance(value, Message):
            plain[descriptor.name] = fields(value)
        elif descriptor.is_repeated:
            plain[descriptor.name] = dict(value) if _is_map(descriptor) else [_plain(each) for each in value]
        else:
            plain[descriptor.name] = value
    return plain


def _plain(value: Any) -> Any:
    return fields(value) if isinstance(value, Message) else value


def _is_map(descriptor: Any) -> bool:
    return descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry
