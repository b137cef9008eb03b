"""One gRPC channel to a control plane: calls that ride out an absent server, streams that end in our own errors. Knows no jobs."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from lorafleet.errors import LorafleetError, TokenExpired, Unavailable
from lorafleet.retry import Patience, Tries
from lorafleet.rpc_errors import from_rpc_error

_CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 60_000),  # a load balancer drops a silent watch without telling either side
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 200),  # gRPC's own waits would outlast Patience
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 2**20),  # a page of a thousand jobs with long prompts
]

Response = TypeVar("Response")


class Connection:
    """Every call may be repeated, so a lost answer is an absent server. Safe to share between threads."""

    def __init__(self, server: str, patience: Patience, call_timeout_s: float) -> None:
        self.server = server
        self.patience = patience
        self.channel = grpc.insecure_channel(server, options=_CHANNEL_OPTIONS)
        self._call_timeout_s = call_timeout_s

    def close(self) -> None:
        self.channel.close()

    def call(self, method: Callable[..., Response], request: Message) -> Response:
        return self._until_answered(lambda: method(request, timeout=self._call_timeout_s))

    def call_with_all(self, method: Callable[..., Response], requests: Sequence[Message], *, more_s: float = 0.0) -> Response:
        """A call that sends many messages. Another try sends all of them again."""
        return self._until_answered(lambda: method(iter(requests), timeout=self._call_timeout_s + more_s))

    def stream(self, method: Callable[..., Any], request: Message, deadline: float | None = None) -> Iterator[Any]:
        """The answers of one try."""
        answers = method(request, timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        try:
            yield from answers
        except grpc.RpcError as error:
            raise self._translated(error) from None
        finally:
            answers.cancel()  # the caller may have stopped reading

    def watch(self, method: Callable[..., Any], request: Any, deadline: float | None = None) -> Iterator[Any]:
        """Events without end; `request` carries the token with which the watch goes on when the server comes back."""
        tries = Tries(self.patience)
        while True:
            try:
                for event in self.stream(method, request, deadline):
                    tries.succeeded()
                    request.resume_token = event.resume_token
                    yield event
                raise Unavailable(f"{self.server} ended the watch")
            except Unavailable as error:
                _raise_if_past(deadline)
                tries.pause_after(error)
            except TokenExpired:
                if not request.resume_token:
                    raise
                request.resume_token = ""  # too long away to go on: begin with a snapshot

    def _until_answered(self, attempt: Callable[[], Response]) -> Response:
        tries = Tries(self.patience)
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                tries.pause_after(self._translated(error))

    def _translated(self, error: grpc.RpcError) -> LorafleetError:
        known = from_rpc_error(error)
        if type(known) is Unavailable and known.reason == Unavailable.reason:  # gRPC's own, which names no server
            return Unavailable(f"{self.server} does not answer ({known.message})")
        return known


def deadline_after(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _raise_if_past(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeoutError("what was waited for has not ended in time")
