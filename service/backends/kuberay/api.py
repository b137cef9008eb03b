"""The API server: calls by path, bounded in time and counted, and errors as ours."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from lorafleet.errors import LorafleetError, Unavailable
from service.backends.kuberay.connection import Connection, connect
from service.backends.kuberay.objects import Object, WatchEvent
from service.core import telemetry

if TYPE_CHECKING:
    import aiohttp

CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 30.0
PIECE_BYTES = 64 * 1024  # that are read at once of what is long
WATCH_SILENT_S = 150.0  # the server ends a watch before, also one that has nothing to tell (watch.py)
UNREACHABLE = "KUBERNETES_UNREACHABLE"
MESSAGE_MAX = 1000  # characters of a server's own words


class ApiRefusal(LorafleetError):
    """The API server answered, and not what was hoped for. `status` is HTTP's, `cause` Kubernetes' own reason."""

    def __init__(self, message: str, *, status: int, cause: str, reason: str, retryable: bool) -> None:
        super().__init__(message, reason=reason, retryable=retryable)
        self.status = status
        self.cause = cause


class Expired(Exception):
    """A watch cannot go on from where it was: list again."""


class Api:
    """Calls by path. Each is counted and bounded in time."""

    def __init__(self, kubeconfig: str | None = None) -> None:
        """`kubeconfig`: None takes KUBECONFIG or, in a pod, the pod's service account."""
        self._kubeconfig = kubeconfig
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def get(self, path: str, **query: str) -> Any:
        """An object, or a list: whoever asks says which, by a type of `objects`."""
        return json.loads(await self.call("GET", path, query=query))

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """The body line by line as it comes: however long it is, it need not fit into memory. Raises as `call` does."""
        import aiohttp

        within = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=TIMEOUT_S)
        async with self._answer("GET", path, query, None, "application/json", within) as response:
            rest = b""
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line + b"\n"
            if rest:
                yield rest

    async def create(self, path: str, body: Object) -> Any:
        return json.loads(await self.call("POST", path, body=body))

    async def apply(self, path: str, body: Object, manager: str) -> Any:
        """Server-side, strictly: a field that the server does not know is refused, and so is one that another manager has."""
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        return json.loads(await self.call("PATCH", path, query=query, body=body, content="application/apply-patch+yaml"))

    async def merge(self, path: str, body: Object, manager: str) -> Any:
        query = {"fieldManager": manager}
        return json.loads(await self.call("PATCH", path, query=query, body=body, content="application/merge-patch+json"))

    async def delete(self, path: str, *, uid: str = "", propagation: str = "Foreground") -> None:
        """With `uid`, only the object that has it."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        await self.call("DELETE", path, body={**options, "preconditions": {"uid": uid}} if uid else options)

    async def call(
        self, verb: str, path: str, *, query: Mapping[str, str] | None = None, body: Object | None = None, content: str = "application/json"
    ) -> bytes:
        """The body of a good answer. Raises Unavailable when nobody answers, and Refused."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        async with self._answer(verb, path, query or {}, body, content, timeout) as response:
            return await response.read()

    async def watch(self, path: str, query: Mapping[str, str], opened: Callable[[], None]) -> AsyncGenerator[WatchEvent]:
        """Events as they come; ends when the server ends it. `opened` is called once it begins to answer.

        Raises Expired, Refused, and Unavailable when the line is cut.
        """
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=WATCH_SILENT_S)
        async with self._answer("GET", path, {**query, "watch": "true"}, None, "application/json", timeout) as response:
            opened()
            while line := await response.content.readline():
                event: WatchEvent = json.loads(line)
                if event["type"] == "ERROR":
                    _raise(event["object"].get("code", 0), json.dumps(event["object"]).encode(), path)
                yield event

    @property
    def host(self) -> str:
        """Its URL, once it was asked something."""
        return "" if self._connection is None else self._connection.host

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    @asynccontextmanager
    async def _answer(
        self, verb: str, path: str, query: Mapping[str, str], body: Object | None, content: str, within: "aiohttp.ClientTimeout"
    ) -> AsyncGenerator["aiohttp.ClientResponse"]:
        import aiohttp

        connection = await self._connected()
        headers = {"Accept": "application/json", "Content-Type": content, **await connection.authorization()}
        data = None if body is None else json.dumps(body)
        began, code = time.monotonic(), "none"
        try:
            async with connection.request(verb, path, query, headers, data, within) as response:
                code = str(response.status)
                if response.status >= 400:
                    _raise(response.status, await response.read(), path)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            told = f"the Kubernetes API server at {self.host} does not answer ({type(error).__name__})"
            raise Unavailable(told, reason=UNREACHABLE) from None
        finally:
            _count(verb, path, query, code, time.monotonic() - began)

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None:
                self._connection = await connect(self._kubeconfig)
            return self._connection


def _raise(status: int, body: bytes, path: str) -> None:
    """Raises what an answer means."""
    try:
        answer = json.loads(body)
        cause, words = answer.get("reason") or "", (answer.get("message") or "")[:MESSAGE_MAX]
    except (ValueError, AttributeError):
        cause, words = "", body[:MESSAGE_MAX].decode(errors="replace")
    if status == 410 or cause in {"Expired", "Gone"}:
        raise Expired(words)
    reason, retryable = meaning(status, cause, words)
    if reason == UNREACHABLE:
        raise Unavailable(f"the Kubernetes API server answers HTTP {status}: {words}", reason=UNREACHABLE)
    raise ApiRefusal(f"Kubernetes refuses {path}: HTTP {status}: {words}", status=status, cause=cause, reason=reason, retryable=retryable)


def meaning(status: int, cause: str, words: str) -> tuple[str, bool]:
    """Our reason for a refusal, and whether trying again may help. Pure."""
    if "denied the request" in words or "denied request" in words or ("admission webhook" in words and status < 500):
        return "WEBHOOK_REFUSED", False
    if "failed calling webhook" in words:
        return "WEBHOOK_UNREACHABLE", True
    if status == 403 and "exceeded quota" in words:
        return "QUOTA_EXCEEDED", True
    if status == 403:
        return "KUBERNETES_FORBIDDEN", True  # until somebody grants it
    if status == 401:
        return "KUBERNETES_UNAUTHENTICATED", True
    if status == 404:
        return "KUBERNETES_NOT_FOUND", False
    if status == 409:
        return "KUBERNETES_CONFLICT", True
    if status == 429 or status >= 500:
        return UNREACHABLE, True
    return "KUBERNETES_REFUSED", False


def _count(verb: str, path: str, query: Mapping[str, str], code: str, took_s: float) -> None:
    name, resource = kind_of(verb, path, query)
    telemetry.count("lorafleet_kubernetes_requests_total", verb=name, resource=resource, code=code)
    if name != "watch":
        telemetry.measure("lorafleet_kubernetes_request_seconds", took_s, verb=name)


def kind_of(verb: str, path: str, query: Mapping[str, str]) -> tuple[str, str]:
    """Verb and resource as Kubernetes' own rules name them: `list`, `pods`. Pure."""
    parts = path.strip("/").split("/")
    if parts[0] not in {"api", "apis"} or len(parts) < (3 if parts[0] == "api" else 4):
        return verb.lower(), "discovery"
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:]])
    if verb == "GET":
        named = len(rest) > 1
        return ("watch" if query.get("watch") else "get" if named else "list"), resource
    return {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(verb, verb.lower()), resource
