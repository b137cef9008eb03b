"""A real gRPC server that answers who calls, before authenticators that a test chooses."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from lorafleet.credentials import Credentials
from lorafleet.transport.channel import open_aio_channel
from lorafleet.transport.rpc_errors import from_rpc_error
from service.access.authenticators import Authenticators
from service.access.identity import caller
from service.api.errors import Context, ErrorInterceptor
from service.api.interceptors.authentication import AuthenticationInterceptor, by

METHOD = "/test.Who/Ask"


@dataclass(frozen=True)
class Refused:
    code: str
    reason: str
    message: str


@dataclass(frozen=True)
class Asked:
    """Asks the server who calls."""

    server: str
    credentials: Credentials

    async def __call__(self, bearer: str = "", *, metadata: Sequence[tuple[str, str]] = ()) -> str:
        shown = (("authorization", f"Bearer {bearer}"),) if bearer else tuple(metadata)
        async with open_aio_channel(self.server, self.credentials) as channel:
            ask: Any = channel.unary_unary(METHOD)
            return (await ask(b"", metadata=shown, timeout=30)).decode()

    async def refused(self, bearer: str = "", *, metadata: Sequence[tuple[str, str]] = ()) -> Refused:
        try:
            answer = await self(bearer, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            known = from_rpc_error(error)
            return Refused(error.code().name, known.reason, known.message)
        raise AssertionError(f"answered {answer}")


@asynccontextmanager
async def asking(
    known: Authenticators, tls: grpc.ServerCredentials | None = None, credentials: Credentials | None = None
) -> AsyncIterator[Asked]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), AuthenticationInterceptor(by(known))])
    handlers = {"Ask": grpc.unary_unary_rpc_method_handler(_who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Who", handlers),))
    port = server.add_insecure_port("127.0.0.1:0") if tls is None else server.add_secure_port("127.0.0.1:0", tls)
    await server.start()
    yield Asked(f"127.0.0.1:{port}", credentials or Credentials())
    await server.stop(None)


async def _who(_request: bytes, _context: Context) -> bytes:
    known = caller()
    scope = f" {known.role} in {known.tenant}" if known.tenant else ""
    return f"{known.principal}{scope}{' admin' if known.is_admin else ''}".encode()
