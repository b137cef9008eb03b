"""One gRPC channel to a control plane: calls are retried while the server is absent, streams end in our own errors. Knows no jobs."""

import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from lorafleet.credentials import Credentials
from lorafleet.errors import FailedPrecondition, LorafleetError, TokenExpired, Unavailable
from lorafleet.transport import async_io
from lorafleet.transport.async_io import Response
from lorafleet.transport.retry import Deadline, Patience, Tries
from lorafleet.transport.rpc_errors import from_rpc_error

_CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 60_000),  # a load balancer drops a silent watch without telling either side
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 200),  # gRPC's own waits would outlast Patience
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 2**20),  # a page of a thousand jobs with long prompts
]


class AsyncConnection:
    """All calls are idempotent, so a lost response is treated like an unreachable server."""

    def __init__(self, server: str, credentials: Credentials, patience: Patience, call_timeout_s: float) -> None:
        self.server = server
        self.patience = patience
        self.channel = async_io.open_channel(server, credentials, _CHANNEL_OPTIONS)
        self._call_timeout_s = call_timeout_s
        self._deadline = Deadline(now=patience.now)
        self._closed: list[bool] = []  # shared with the copies that `within` returns

    async def close(self) -> None:
        self._closed.append(True)
        await async_io.close_channel(self.channel)

    def within(self, timeout_s: float) -> Self:
        """The same channel, with one deadline for all calls through it."""
        bounded = copy.copy(self)
        bounded._deadline = self._deadline.or_after(timeout_s)
        return bounded

    async def call(self, method: async_io.Method[Response], request: Message) -> Response:
        """Raises LorafleetError; DeadlineExceeded when the time of `within` is up."""
        return await self._until_answered(lambda try_s: method(request, timeout=try_s), self._call_timeout_s)

    async def call_once(self, method: async_io.Method[Response], request: Message) -> Response:
        """For calls that must not be repeated: the first failure is raised; Unavailable when the outcome is unknown."""
        return await self._until_answered(lambda try_s: method(request, timeout=try_s), self._call_timeout_s, may_repeat=False)

    async def call_with_all(self, method: async_io.Method[Response], requests: Sequence[Message], *, more_s: float = 0.0) -> Response:
        """A call that sends many messages. A retry sends all of them again."""
        return await self._until_answered(lambda try_s: method(iter(requests), timeout=try_s), self._call_timeout_s + more_s)

    async def stream(self, method: Callable[..., Any], request: Message, timeout_s: float | None = None) -> AsyncGenerator[Any]:
        """The responses of one attempt."""
        async with async_io.cancelled_by_close(self._is_closed, self._closed_error):
            if self._is_closed():
                raise self._closed_error()
            answers: async_io.Answers[Any] = method(request, timeout=self._deadline.cut(timeout_s))
            try:
                async for answer in answers:
                    yield answer
            except grpc.RpcError as error:
                raise self._translated(error) from None
            finally:
                answers.cancel()  # the caller may have stopped reading

    async def streams(
        self, method: Callable[..., Any], request: Message, deadline: Deadline, started: Callable[[], None]
    ) -> AsyncGenerator[Any]:
        """The responses of as many attempts as it takes until the server ends the stream; `started` is called for each."""
        tries = Tries(self.patience)
        while True:
            started()
            try:
                async with aclosing(self.stream(method, request, deadline.cut(None))) as answers:
                    async for answer in answers:
                        tries.succeeded()
                        yield answer
                return
            except LorafleetError as error:
                await self._pause(tries, error, deadline)

    async def watch(self, method: Callable[..., Any], request: Any, timeout_s: float | None = None) -> AsyncGenerator[Any]:
        """Endless events; `request` carries the token with which the watch resumes when the server returns."""
        tries, deadline = Tries(self.patience), self.deadline(timeout_s)
        while True:
            try:
                async with aclosing(self.stream(method, request, deadline.cut(None))) as events:
                    async for event in events:
                        tries.succeeded()
                        request.resume_token = event.resume_token
                        yield event
                raise Unavailable(f"{self.server} ended the watch")
            except TokenExpired:
                if not request.resume_token:
                    raise
                request.resume_token = ""  # away too long to resume: start over with a snapshot
            except LorafleetError as error:
                await self._pause(tries, error, deadline)

    def deadline(self, timeout_s: float | None = None) -> Deadline:
        return self._deadline.or_after(timeout_s)

    async def _until_answered(self, attempt: async_io.Attempt[Response], try_s: float, *, may_repeat: bool = True) -> Response:
        tries = Tries(self.patience)
        async with async_io.cancelled_by_close(self._is_closed, self._closed_error):
            while True:
                if self._is_closed():
                    raise self._closed_error()
                try:
                    return await attempt(self._deadline.cut(try_s))
                except grpc.RpcError as error:
                    known = self._translated(error)
                    if not may_repeat:
                        raise known from None
                    await self._pause(tries, known, self._deadline)

    async def _pause(self, tries: Tries, error: LorafleetError, deadline: Deadline) -> None:
        if not error.retryable:
            raise error
        deadline.check(error)
        await async_io.sleep(deadline.cut(tries.delay_after(error)) or 0.0)
        deadline.check(error)

    def _translated(self, error: grpc.RpcError) -> LorafleetError:
        if self._is_closed():
            return self._closed_error()
        known = from_rpc_error(error)
        if type(known) is Unavailable and known.reason == Unavailable.reason:  # gRPC's own error, which names no server
            return Unavailable(f"{self.server} does not answer; is lorafleet serve running there, under this address? ({known.message})")
        return known

    def _is_closed(self) -> bool:
        return bool(self._closed)

    def _closed_error(self) -> LorafleetError:
        return FailedPrecondition("the client is closed", reason="CLIENT_CLOSED")
