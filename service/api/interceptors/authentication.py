"""Sets the caller of each RPC. `service.access` authenticates it; what it may do is decided later."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol

from lorafleet.errors import Unauthenticated, Unavailable
from service.access.authenticators import Authenticators, Shown, certificate_name
from service.access.identity import OPEN, Identity, current_identity
from service.api.errors import Context
from service.api.handlers import Handler, MethodInterceptor, wrapped
from service.api.interceptors.call_stages import current

# Reports carry the token of their run, and health is asked by load balancers, which have none.
NOT_AUTHENTICATED = ("/lorafleet.v1.ReportService/", "/grpc.health.v1.Health/")

ASK_AGAIN_S = 5.0  # of a stream, before its next answer: a revoked token opens nothing for longer


class WhoCalls(Protocol):
    """Authenticates a call."""

    async def __call__(self, context: Context) -> Identity:
        """Raises Unauthenticated."""
        ...


async def anybody(context: Context) -> Identity:
    """For a server without authenticator, which listens on loopback only."""
    return OPEN


def by(authenticators: Authenticators) -> WhoCalls:
    """Passes the call's credentials to the authenticators."""

    async def who_calls(context: Context) -> Identity:
        return await authenticators.identity(shown(context))

    return who_calls


def shown(context: Context) -> Shown:
    """The credentials of the call. Raises Unauthenticated for an authorization that is not a bearer token."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    bearer = ""
    if values:
        scheme, _, bearer = str(values[0]).partition(" ")
        bearer = bearer.strip()
        if len(values) > 1 or scheme.lower() != "bearer" or not bearer:
            message = 'the call\'s metadata must hold "authorization: Bearer TOKEN", once'
            raise Unauthenticated(message, reason="TOKEN_INVALID")
    return Shown(bearer=bearer, certificate_name=_certificate_name(context.auth_context()))


def _certificate_name(auth: Mapping[str, Sequence[bytes]]) -> str:
    """gRPC has verified the certificate: it asks for one only where there is an authority to verify it by."""
    names = {key: [name.decode(errors="replace") for name in auth.get(key, ())] for key in ("peer_uri", "peer_dns", "x509_common_name")}
    return certificate_name(names["peer_uri"], names["peer_dns"], "".join(names["x509_common_name"][:1]))


class AuthenticationInterceptor(MethodInterceptor):
    """Wraps every method that is not in NOT_AUTHENTICATED. Runs inside ErrorInterceptor, which translates what it raises."""

    def __init__(self, who_calls: WhoCalls) -> None:
        super().__init__()
        self._who_calls = who_calls

    def around(self, method: str, handler: Handler) -> Handler:
        if method.startswith(NOT_AUTHENTICATED):
            return handler
        return wrapped(handler, unary=self._unary, stream=self._stream)

    def _unary(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            token = current_identity.set(await self._known(context))
            try:
                return await method(request, context)
            finally:
                current_identity.reset(token)

        return call

    def _stream(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            current_identity.set(await self._known(context))  # each call has its own context: nothing to restore
            asked_s = time.monotonic()
            async with aclosing(method(request, context)) as responses:
                async for response in responses:
                    if time.monotonic() - asked_s >= ASK_AGAIN_S:
                        await self._check_still_known(context)
                        asked_s = time.monotonic()
                    yield response

        return call

    async def _known(self, context: Context) -> Identity:
        """The caller, and from now on the call's slot is the caller's. Raises Unauthenticated."""
        identity = await self._who_calls(context)
        if (stage := current.get(None)) is not None:
            stage.become_known(identity.principal)
        return identity

    async def _check_still_known(self, context: Context) -> None:
        """Raises Unauthenticated for a caller who is not known any more, and Unavailable when only the token's time is over: a client
        that resumes brings a newer one. Who cannot be checked at the moment was known a moment ago."""
        try:
            with suppress(Unavailable):
                await self._who_calls(context)
        except Unauthenticated as error:
            if error.reason != "TOKEN_EXPIRED":
                raise
            raise Unavailable("the token has expired; resume with a newer one", reason=error.reason) from None
