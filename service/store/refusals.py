"""Raises a store's refusal as what it means: an answer of boto3's, by the table that the trainer uses too."""

from typing import Any

from lorafleet.contract import store_faults
from lorafleet.contract.store_faults import Fault, FaultKind
from lorafleet.errors import LorafleetError, OperatorsFault, Unavailable
from service.store.bounded_reads import StoreError

BEHIND_THE_END = "BEHIND_THE_END"
ALREADY_THERE = "ALREADY_THERE"


def conditional(response: Any) -> StoreError | None:
    """What a store answers to a condition of the request: no fault, but for who asked."""
    if response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
        return StoreError("the object ends before the bytes that are asked for", reason=BEHIND_THE_END)
    if response["Error"].get("Code") in {"PreconditionFailed", "ConditionalRequestConflict"}:
        return StoreError("there is such an object already", reason=ALREADY_THERE)
    return None


def of_response(error: Any) -> Fault:
    """Of a ClientError."""
    response = error.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return store_faults.of_answer(str(response["Error"].get("Code", "")), status, getattr(error, "operation_name", ""))


def raised(message: str, fault: Fault) -> LorafleetError:
    """The error to raise for a fault."""
    match fault.kind:
        case FaultKind.OPERATOR:
            return OperatorsFault(message, reason=fault.reason)
        case FaultKind.PERMANENT:
            return StoreError(message, reason=fault.reason)
        case FaultKind.TRANSIENT:
            return Unavailable(message, reason="STORE_UNREACHABLE")
