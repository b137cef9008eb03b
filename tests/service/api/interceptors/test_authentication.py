"""The interceptor: who calls is known around each call of every shape, and nobody is known elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest

from lorafleet.errors import LorafleetError, Unauthenticated, Unavailable
from lorafleet.transport.rpc_errors import from_rpc_error
from service.access.identity import Identity, caller, current_identity
from service.api.errors import Context, ErrorInterceptor
from service.api.interceptors import authentication
from service.api.interceptors.authentication import AuthenticationInterceptor

SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


async def by_name(context: Context) -> Identity:
    """A caller is who it says: the least authenticator that can tell callers apart."""
    name = dict(context.invocation_metadata() or ()).get("name")
    if name is None:
        raise Unauthenticated("no name", reason="TOKEN_MISSING")
    return Identity(principal=str(name))


async def one(_request: object, _context: Context) -> bytes:
    return caller().principal.encode()


async def many(_request: object, _context: Context) -> AsyncIterator[bytes]:
    yield caller().principal.encode()
    yield caller().principal.encode()


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), AuthenticationInterceptor(by_name)])
    methods = {shape: getattr(grpc, f"{shape}_rpc_method_handler")(many if shape.endswith("stream") else one) for shape in SHAPES}
    for service in ("test.Who", "lorafleet.v1.ReportService", "grpc.health.v1.Health"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


async def call(channel: grpc.aio.Channel, shape: str, service: str = "test.Who", *, name: str | None) -> set[bytes]:
    metadata = () if name is None else (("name", name),)
    asked, answered = shape.split("_")
    answer = getattr(channel, shape)(f"/{service}/{shape}")(b"" if asked == "unary" else iter([b""]), metadata=metadata)
    return {await answer} if answered == "unary" else {piece async for piece in answer}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_call_of_every_shape_knows_its_caller(channel: grpc.aio.Channel, shape: str) -> None:
    assert await call(channel, shape, name="ada") == {b"ada"}
    assert await call(channel, shape, name="bob") == {b"bob"}
    with pytest.raises(LookupError):
        current_identity.get()


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_call_of_every_shape_is_refused_without_one(channel: grpc.aio.Channel, shape: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, shape, name=None)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("service", ["lorafleet.v1.ReportService", "grpc.health.v1.Health"])
async def test_reports_and_health_are_let_through_as_nobody(channel: grpc.aio.Channel, service: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, "unary_unary", service, name="ada")
    assert refused.value.details() == "the caller is not known"  # the method ran, and its identity was not set


@dataclass
class Gate:
    """Lets ada in, until `error` says why not."""

    error: LorafleetError | None = None
    num_asked: int = 0

    async def __call__(self, context: Context) -> Identity:
        self.num_asked += 1
        if self.error is not None:
            raise self.error
        return Identity(principal="ada")

    async def endless(self, _request: bytes, _context: Context) -> AsyncIterator[bytes]:
        while True:
            yield str(self.num_asked).encode()
            await asyncio.sleep(0)


@pytest.fixture
async def gate_and_stream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Gate, grpc.aio.UnaryStreamCall]]:
    """A stream that is being read, whose caller is asked for again before each answer."""
    monkeypatch.setattr(authentication, "ASK_AGAIN_S", 0.0)
    gate = Gate()
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), AuthenticationInterceptor(gate)])
    methods = {"Endless": grpc.unary_stream_rpc_method_handler(gate.endless)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Who", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        stream = opened.unary_stream("/test.Who/Endless")(b"", timeout=30)
        await stream.read()
        yield gate, stream
        stream.cancel()
    await server.stop(None)


async def read_on(stream: grpc.aio.UnaryStreamCall) -> None:
    while True:
        assert await stream.read() is not grpc.aio.EOF


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthenticated("revoked", reason="TOKEN_REVOKED"), grpc.StatusCode.UNAUTHENTICATED),
        (Unauthenticated("expired", reason="TOKEN_EXPIRED"), grpc.StatusCode.UNAVAILABLE),  # a client resumes with a newer one
    ],
)
async def test_a_stream_ends_once_its_caller_is_not_let_in_any_more(gate_and_stream, error: Unauthenticated, code: grpc.StatusCode):
    gate, stream = gate_and_stream
    gate.error = error
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await read_on(stream)
    assert (ended.value.code(), from_rpc_error(ended.value).reason) == (code, error.reason)


async def test_a_stream_goes_on_while_nobody_can_tell_who_calls(gate_and_stream):
    gate, stream = gate_and_stream
    gate.error, before = Unavailable("the provider is away", reason="JWKS_UNAVAILABLE"), gate.num_asked
    while int(await stream.read()) < before + 3:
        pass
