"""Checks the client's side: can this machine reach the server, is it let in, do both speak the same version, how long does a call take."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any, cast

import grpc

from lorafleet import __version__
from lorafleet.credentials import Credentials
from lorafleet.errors import InvalidInput
from lorafleet.transport.channel import open_channel
from lorafleet.transport.rpc_errors import from_rpc_error
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1.training_service_pb2_grpc import TrainingServiceStub
from service.doctor.findings import Finding, failed, ok, warning

CONNECT_WITHIN_S = 5.0
NUM_CALLS = 5
SLOW_S = 0.5
ASK_VERSION = "lorafleet-ask-version"  # a call with this metadata is answered with the server's version
VERSION = "lorafleet-version"


def check_server(server: str, tenant: str, credentials: Credentials) -> Sequence[Finding]:
    """Blocks. Each step needs the one before."""
    try:
        channel = open_channel(server, credentials)
    except InvalidInput as error:
        return [failed("credentials", error.message, "fix what the message says")]
    with channel:
        try:
            cast(Any, grpc).channel_ready_future(channel).result(CONNECT_WITHIN_S)
        except grpc.FutureTimeoutError:
            kind = "with TLS" if credentials.is_secure else "in plaintext"
            todo = "check the address, that the server is up, and whether it speaks TLS (--tls, or --tls-ca for an authority of your own)"
            return [failed("connect", f"{server} does not answer {kind} within {CONNECT_WITHIN_S:.0f} s", todo)]
        return [ok("connect", f"{server} answers"), *_calls(channel, tenant)]


def _calls(channel: grpc.Channel, tenant: str) -> Sequence[Finding]:
    request = pb.ListTrainingJobsRequest(parent=f"tenants/{tenant}", page_size=1)
    stub: Any = TrainingServiceStub(channel)
    took_s: list[float] = []
    version: object = ""
    for _ in range(NUM_CALLS):
        began = time.monotonic()
        try:
            _, call = stub.ListTrainingJobs.with_call(request, timeout=10, metadata=((ASK_VERSION, "1"),))
        except grpc.RpcError as error:
            known = from_rpc_error(error)
            return [failed("access", f"{known.reason}: {known.message}", _todo(error, tenant))]
        took_s.append(time.monotonic() - began)
        version = cast(dict[str, object], dict(call.initial_metadata() or ())).get(VERSION, "")
    return [ok("access", f"jobs of {tenant} may be listed"), _version(str(version)), _round_trip(median(took_s))]


def _todo(error: grpc.RpcError, tenant: str) -> str:
    match error.code():  # pyright: ignore[reportAttributeAccessIssue] (its stubs do not know that it is a call too)
        case grpc.StatusCode.UNAUTHENTICATED:
            return "give a token that is good for this server (LORAFLEET_TOKEN, LORAFLEET_TOKEN_FILE), or a client certificate"
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.NOT_FOUND:
            return f"ask an administrator to make you a member of the tenant {tenant}, or choose another with --tenant"
        case _:
            return "look at the server's log"


def _version(theirs: str) -> Finding:
    if not theirs:
        return warning("version", "the server does not tell its version", "it is older than this client: upgrade it")
    if theirs.split(".")[:2] != __version__.split(".")[:2]:
        return warning("version", f"the server has {theirs} and this client {__version__}", "use the same minor version on both sides")
    return ok("version", f"{theirs} on both sides" if theirs == __version__ else f"{theirs}, and {__version__} here")


def _round_trip(took_s: float) -> Finding:
    message = f"{took_s * 1000:.1f} ms for a call"
    return (
        warning("round trip", message, "look at the network between, and at the server's load")
        if took_s > SLOW_S
        else ok("round trip", message)
    )
