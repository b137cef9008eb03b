"""Turns errors into google.rpc.Status (AIP-193), the one place that does. Servicers raise; they have no `try`."""
# pyright: reportMissingTypeStubs=false

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from lorafleet.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    LorafleetError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    QuotaViolation,
    ResourceExhausted,
    TokenExpired,
    Unauthenticated,
    Unavailable,
    Violation,
)
from service.api.handlers import Handler, MethodInterceptor, wrapped
from service.core import telemetry

DOMAIN = "lorafleet"
# gRPC clients accept 8 KiB of trailers and get no response at all beyond that. The message is in them twice, as text and in
# the status, together with the violations.
MAX_VIOLATIONS = 100
MAX_VIOLATIONS_BYTES = 4500
MAX_MESSAGE_BYTES = 1500
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")  # all else gRPC sends percent-encoded
MAX_TEXT = 400  # characters of one violation, and of a message that is too long

_CODES: list[tuple[type[LorafleetError], int]] = [
    (InvalidInput, code_pb2.INVALID_ARGUMENT),
    (Unauthenticated, code_pb2.UNAUTHENTICATED),
    (PermissionDenied, code_pb2.PERMISSION_DENIED),
    (NotFound, code_pb2.NOT_FOUND),
    (AlreadyExists, code_pb2.ALREADY_EXISTS),
    (FailedPrecondition, code_pb2.FAILED_PRECONDITION),
    (Aborted, code_pb2.ABORTED),
    (TokenExpired, code_pb2.OUT_OF_RANGE),
    (ResourceExhausted, code_pb2.RESOURCE_EXHAUSTED),
    (Unavailable, code_pb2.UNAVAILABLE),
]

log = logging.getLogger(__name__)
Context = Any  # aio.ServicerContext, which takes type arguments in its stubs alone


def to_status(error: LorafleetError) -> status_pb2.Status:
    """The error as sent to clients: a code, a stable reason, every violation, and a retry delay if known."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), code_pb2.INTERNAL)
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    shown: Sequence[object] = ()
    match error:
        case InvalidInput() if shown := _fitting(error.violations):
            details.append(_bad_request(shown))
        case QuotaExceeded() if shown := _fitting_quotas(error.violations):
            details.append(_quota_failure(shown))
        case _:
            pass
    if error.retry_delay_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_delay_s * 1e9))
        details.append(retry)
    return status_pb2.Status(code=code, message=_told(error, shown), details=[_packed(detail) for detail in details])


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    kind = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(field_violations=[kind(field=one.field, description=one.message) for one in violations])


def _quota_failure(violations: Sequence[QuotaViolation]) -> error_details_pb2.QuotaFailure:
    kind = error_details_pb2.QuotaFailure.Violation
    return error_details_pb2.QuotaFailure(violations=[kind(subject=one.subject, description=one.description) for one in violations])


def _fitting(violations: Sequence[Violation]) -> list[Violation]:
    """As many violations as are useful and fit into a status; the last one then says how many more there are."""
    shown: list[Violation] = []
    room = MAX_VIOLATIONS_BYTES
    for place, full in enumerate(violations):
        violation = Violation(field=_cut(full.field, MAX_TEXT), message=_cut(full.message, MAX_TEXT))
        room -= len(str(violation).encode()) + 8  # what the wire puts around two texts
        if room < 0 or place == MAX_VIOLATIONS:
            return [*shown, Violation(field="more", message=f"and {len(violations) - place:,} more problems; fix these first")]
        shown.append(violation)
    return shown


def _fitting_quotas(violations: Sequence[QuotaViolation]) -> list[QuotaViolation]:
    """The quota violations that fit; there are only a few kinds."""
    cut = [QuotaViolation(subject=_cut(one.subject, MAX_TEXT), description=_cut(one.description, MAX_TEXT)) for one in violations]
    ends = accumulate(len(str(one).encode()) + 8 for one in cut)
    return [one for one, end in zip(cut, ends, strict=True) if end <= MAX_VIOLATIONS_BYTES]


def _told(error: LorafleetError, shown: Sequence[object]) -> str:
    """The message travels twice: one that lists what the details list too is left at its first line when it is long."""
    if _is_short(error.message):
        return error.message
    message = _cut(error.message.partition("\n")[0] if shown else error.message, MAX_TEXT)
    while not _is_short(message):
        message = _cut(message, len(message) // 2)
    return message


def _is_short(message: str) -> bool:
    return len(message) <= MAX_MESSAGE_BYTES and len(quote(message, safe=_PLAIN)) <= MAX_MESSAGE_BYTES


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _packed(detail: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


class ErrorInterceptor(MethodInterceptor):
    """Wraps every method. Unforeseen exceptions become INTERNAL with an id; the traceback stays in our log."""

    def around(self, method: str, handler: Handler) -> Handler:
        decoder = _decoder(handler.request_deserializer)
        return wrapped(handler, unary=_unary, stream=_stream, decoder=decoder)


@dataclass(frozen=True)
class _NoMessage:
    """Stands for bytes that do not parse. gRPC itself would return UNKNOWN and name the Python error."""


def _decoder(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if decode is None:
        return None

    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _NoMessage()

    return decoded


def checked(request: Any) -> Any:
    """The request or stream of requests. Raises InvalidInput for bytes that do not parse."""
    if isinstance(request, _NoMessage):
        raise InvalidInput(
            "the request cannot be parsed as this method's message, or contains text that is not UTF-8", reason="BAD_MESSAGE"
        )
    return _checked_stream(request) if hasattr(request, "__aiter__") else request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield checked(request)


def _unary(method: Any) -> Any:
    async def call(request: Any, context: Context) -> Any:
        try:
            return await method(checked(request), context)
        except Exception as error:
            await abort(context, error)

    return call


def _stream(method: Any) -> Any:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async with aclosing(method(checked(request), context)) as answers:
                async for answer in answers:
                    yield answer
        except Exception as error:
            await abort(context, error)

    return call


async def abort(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the error's status; unforeseen exceptions become INTERNAL with an id."""
    if isinstance(error, grpc.aio.AbortError):  # the standard services abort by themselves
        raise error
    if not isinstance(error, LorafleetError):
        number = uuid4().hex[:12]
        log.error("error %s", number, exc_info=error)
        error = LorafleetError(f"internal error {number}; the server's log says more")
    _count(error)
    await context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort returned")


def _count(error: LorafleetError) -> None:
    telemetry.count("lorafleet_rpc_errors_total", reason=error.reason)
    if isinstance(error, Unauthenticated):
        telemetry.count("lorafleet_auth_failures_total", reason=error.reason)
    if isinstance(error, ResourceExhausted):
        telemetry.count("lorafleet_rate_limited_total", reason=error.reason)
