"""The spec on the wire: `lorafleet.v1.TrainingSpec` has the same fields by the same names, so this is a plain walk.

An unset proto field is left out, so that the spec's own default fills it in.
"""

from typing import Any

from google.protobuf.message import Message
from pydantic import BaseModel

from lorafleet import spec
from lorafleet.v1 import spec_pb2


def from_proto(message: spec_pb2.TrainingSpec) -> spec.Spec:
    """The spec that a message carries. Raises InvalidSpec with every violation."""
    return spec.parse(_fields(message))


def to_proto(value: spec.Spec) -> spec_pb2.TrainingSpec:
    """The message of a spec, with every default filled in."""
    message = spec_pb2.TrainingSpec()
    _fill(message, value)
    return message


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if isinstance(value, Message):
            fields[descriptor.name] = _fields(value)
        elif descriptor.is_repeated:
            fields[descriptor.name] = dict(value) if _is_map(descriptor) else list(value)
        else:
            fields[descriptor.name] = value
    return fields


def _is_map(descriptor: Any) -> bool:
    return descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry


def _fill(message: Message, value: BaseModel) -> None:
    for name in type(value).model_fields:
        match getattr(value, name):
            case None:
                continue
            case BaseModel() as part:
                getattr(message, name).SetInParent()
                _fill(getattr(message, name), part)
            case tuple() as items:
                getattr(message, name).extend(items)
            case dict() as items:
                getattr(message, name).update(items)
            case scalar:
                setattr(message, name, scalar)
