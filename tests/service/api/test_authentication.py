"""The interceptor: who calls is known around each call of every shape, and nobody is known elsewhere."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from lorafleet.errors import Unauthenticated
from service.access.identity import Identity, caller, current_identity
from service.api.authentication import AuthenticationInterceptor
from service.api.errors import Context, ErrorInterceptor

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
    assert refused.value.details() == "who calls is not known"  # the method ran, and its identity was not set
