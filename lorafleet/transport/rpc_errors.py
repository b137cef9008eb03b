"""Turns gRPC statuses into exceptions: google.rpc.Status and its details become the tree of lorafleet.errors (AIP-193)."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# googleapis-common-protos ships no stubs.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from lorafleet.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    InvalidSpec,
    LorafleetError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    QuotaViolation,
    RateLimited,
    ResourceExhausted,
    TokenExpired,
    Unauthenticated,
    Unavailable,
    Violation,
)

_CLASSES: dict[grpc.StatusCode, type[LorafleetError]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: TokenExpired,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,  # gRPC's own says it of a message that is too large
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,  # every method may be repeated, so a lost answer is an absent server
}


@dataclass(frozen=True)
class _Details:
    reason: str = ""
    violations: Sequence[Violation] = ()
    quotas: Sequence[QuotaViolation] = ()
    retry_delay_s: float | None = None


def from_rpc_error(error: grpc.RpcError) -> LorafleetError:
    """The exception that a failed call stands for, with its reason, every violation, and when to try again."""
    call = cast(grpc.Call, error)  # every RpcError that a stub raises is one
    code, message = call.code(), call.details() or ""
    details = _details(call)
    known = _known(code, message, details)
    if details.retry_delay_s is not None:
        known.retryable, known.retry_delay_s = True, details.retry_delay_s
    return known


def _known(code: grpc.StatusCode, message: str, details: _Details) -> LorafleetError:
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _invalid(message, details)
    if details.quotas:
        return _quota_exceeded(message, details)
    if details.reason == RateLimited.reason:
        return RateLimited(message)
    known = _CLASSES.get(code, LorafleetError)
    fallback = known.reason if known is not LorafleetError else code.name
    return known(message or code.name, reason=details.reason or fallback)


def _invalid(message: str, details: _Details) -> InvalidInput:
    if details.reason == InvalidSpec.reason:
        return InvalidSpec(details.violations)
    return InvalidInput(message, violations=details.violations, reason=details.reason or None)


def _quota_exceeded(message: str, details: _Details) -> QuotaExceeded:
    """Its own message lists the violations, as the one that came does already."""
    return QuotaExceeded(message.partition("\n")[0], violations=details.quotas, reason=details.reason or None)


def _details(call: grpc.Call) -> _Details:
    reason, retry_delay_s = "", None
    violations, quotas = list[Violation](), list[QuotaViolation]()
    for packed in _packed_details(call):
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        quota, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            violations += [Violation(field=one.field, message=one.description) for one in bad.field_violations]
        elif packed.Unpack(quota):
            quotas += [QuotaViolation(subject=one.subject, description=one.description) for one in quota.violations]
        elif packed.Unpack(retry):
            retry_delay_s = retry.retry_delay.ToNanoseconds() / 1e9
    return _Details(reason, violations, quotas, retry_delay_s)


def _packed_details(call: grpc.Call) -> Sequence[Any]:
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # a proxy rewrote the status and left the details of the old one
        return ()
    return status.details if status else ()
