"""gRPC statuses as exceptions: google.rpc.Status, ErrorInfo and BadRequest become the tree of lorafleet.errors (AIP-193)."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# googleapis-common-protos ships no stubs.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from lorafleet.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    InvalidSpec,
    LorafleetError,
    NotFound,
    TokenExpired,
    Unauthenticated,
    Unavailable,
    Violation,
)

_CLASSES: dict[grpc.StatusCode, type[LorafleetError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.OUT_OF_RANGE: TokenExpired,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,  # every method may be repeated, so a lost answer is an absent server
}


@dataclass(frozen=True)
class _Details:
    reason: str = ""
    violations: Sequence[Violation] = ()


def from_rpc_error(error: grpc.RpcError) -> LorafleetError:
    """The exception that a failed call stands for, with its reason and every violation."""
    call = cast(grpc.Call, error)  # every RpcError that a stub raises is one
    code, message = call.code(), call.details() or ""
    details = _details(call)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _invalid(message, details)
    known = _CLASSES.get(code, LorafleetError)
    fallback = known.reason if known is not LorafleetError else code.name
    return known(message or code.name, reason=details.reason or fallback)


def _invalid(message: str, details: _Details) -> InvalidInput:
    if details.reason == InvalidSpec.reason:
        return InvalidSpec(details.violations)
    return InvalidInput(message, violations=details.violations, reason=details.reason or None)


def _details(call: grpc.Call) -> _Details:
    reason, violations = "", list[Violation]()
    for packed in _packed_details(call):
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            violations += [Violation(field=one.field, message=one.description) for one in bad.field_violations]
    return _Details(reason, violations)


def _packed_details(call: grpc.Call) -> Sequence[Any]:
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # a proxy rewrote the status and left the details of the old one
        return ()
    return status.details if status else ()
