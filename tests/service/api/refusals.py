"""What a refused call carries."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class Refusal:
    code: str
    reason: str
    fields: dict[str, str]
    message: str


async def refusal(call: Awaitable[Any]) -> Refusal:
    """The error that `call` must end with. Every one names a reason of ours."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = raised.value
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, fields = error_details_pb2.ErrorInfo(), {}
    for detail in status.details:
        _unpack(detail, info, fields)
    assert info.domain == "lorafleet"
    return Refusal(error.code().name, info.reason, fields, error.details() or "")


def _unpack(detail: AnyMessage, info: error_details_pb2.ErrorInfo, fields: dict[str, str]) -> None:
    detail.Unpack(info)
    bad = error_details_pb2.BadRequest()
    if detail.Unpack(bad):
        fields.update({violation.field: violation.description for violation in bad.field_violations})
