"""Opens gRPC channels, for blocking callers and for asyncio: TLS and token as the credentials say. Knows no services."""
# pyright: reportMissingTypeArgument=false, reportUnknownMemberType=false
# The interceptors take type arguments in gRPC's stubs alone.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from lorafleet.credentials import Credentials, is_local, read
from lorafleet.errors import InvalidInput
from lorafleet.transport.tracing import is_traced, trace_headers

Options = Sequence[tuple[str, Any]]

# http_proxy is rarely meant for loopback, and a token in plaintext must not go through a proxy.
DIRECT: Options = (("grpc.enable_http_proxy", 0),)


def open_channel(server: str, credentials: Credentials, options: Options = ()) -> grpc.Channel:
    """A channel for blocking calls. Raises InvalidInput for credentials that cannot be used."""
    tls, options = _prepared(server, credentials, options)
    channel = grpc.insecure_channel(server, options=options) if tls is None else grpc.secure_channel(server, tls, options=options)
    return grpc.intercept_channel(channel, _Bearer(credentials)) if credentials.has_token or is_traced() else channel


def open_aio_channel(server: str, credentials: Credentials, options: Options = ()) -> grpc.aio.Channel:
    """A channel for asyncio. Raises InvalidInput for credentials that cannot be used."""
    tls, options = _prepared(server, credentials, options)
    bearers: list[Any] = []
    if credentials.has_token or is_traced():  # one object for each shape: gRPC takes an interceptor for one shape alone
        bearers = [shape(credentials) for shape in (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)]
    if tls is None:
        return grpc.aio.insecure_channel(server, options=options, interceptors=bearers)
    return grpc.aio.secure_channel(server, tls, options=options, interceptors=bearers)


def _prepared(server: str, credentials: Credentials, options: Options) -> tuple[grpc.ChannelCredentials | None, Options]:
    credentials.check(server)
    if not credentials.is_secure:
        return None, [*options, *DIRECT] if is_local(server) else options
    roots = _roots(credentials)
    key = read(credentials.tls_key, "key of the client certificate") if credentials.tls_key is not None else None
    chain = read(credentials.tls_cert, "client certificate") if credentials.tls_cert is not None else None
    return grpc.ssl_channel_credentials(roots, key, chain), options


def _roots(credentials: Credentials) -> bytes | None:
    """Whom the caller trusts; None: whom this machine trusts."""
    if credentials.tls_ca is not None:
        roots, where = read(credentials.tls_ca, "certificate authority"), str(credentials.tls_ca)
    elif credentials.tls_ca_pem is not None:
        roots, where = credentials.tls_ca_pem.encode(), "the certificate authority"
    else:
        return None
    if b"-----BEGIN CERTIFICATE-----" not in roots:
        raise InvalidInput(f"{where} holds no certificate in PEM form")
    return roots


@dataclass(frozen=True)
class _CallDetails(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Shape:
    """Adds the token, and the caller's trace, to a call of one shape."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def _aio(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._headers())
        return details._replace(metadata=metadata)  # pyright: ignore

    def _headers(self) -> Sequence[tuple[str, str]]:
        token = (("authorization", f"Bearer {self._credentials.bearer()}"),) if self._credentials.has_token else ()
        return (*token, *trace_headers())


class _Bearer(
    _Shape,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """For blocking calls."""

    def _intercept(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        metadata = (*(client_call_details.metadata or ()), *self._headers())
        details = _CallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
            client_call_details.compression,
        )
        return continuation(details, request)

    intercept_unary_unary = _intercept  # pyright: ignore
    intercept_unary_stream = _intercept  # pyright: ignore
    intercept_stream_unary = _intercept  # pyright: ignore
    intercept_stream_stream = _intercept  # pyright: ignore


class _AioUnaryUnary(_Shape, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._aio(client_call_details), request)


class _AioUnaryStream(_Shape, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._aio(client_call_details), request)


class _AioStreamUnary(_Shape, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._aio(client_call_details), request_iterator)


class _AioStreamStream(_Shape, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._aio(client_call_details), request_iterator)
