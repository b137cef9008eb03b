"""Serves the side port: /healthz/live, /healthz/ready and /metrics over plain HTTP. Shows no job, no spec and no secret.

HTTP/1.1 in as few lines as three GETs need: a web server would be a dependency with a surface of its own.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lorafleet.errors import Unavailable
from lorafleet.transport.addresses import joined
from service.observability.health import Health, Pulse, Readiness

READ_WITHIN_S = 5.0
ANSWER_WITHIN_S = 20.0
MAX_HEAD_BYTES = 8 * 1024
MAX_CONNECTIONS = 32

_STATUSES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
_STATUSES[503] = "Service Unavailable"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """An answer."""

    status: int
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Awaitable[Page]]]


def health_pages(pulse: Pulse, readiness: Readiness) -> Pages:
    """What orchestrators ask."""

    async def live() -> Page:
        return _health_page(pulse.health())

    async def ready() -> Page:
        return _health_page(await readiness.health())

    return {"/healthz/live": live, "/healthz/ready": ready, "/healthz": ready}


def _health_page(health: Health) -> Page:
    body = {"status": "ok" if health.good else "failing", "parts": dict(health.parts)}
    if health.notes:
        body["notes"] = dict(health.notes)
    return Page(200 if health.good else 503, "application/json", json.dumps(body, indent=2).encode() + b"\n")


@asynccontextmanager
async def probing(listen: tuple[str, int], pages: Pages) -> AsyncGenerator[str]:
    """Answers on host and port while entered; yields the address. Raises Unavailable (PORT_TAKEN)."""
    host, port = listen
    free = asyncio.Semaphore(MAX_CONNECTIONS)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with free:
                await _serve(reader, writer, pages)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked went away, or sent no request
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(connected, host, port, limit=MAX_HEAD_BYTES)
    except OSError as error:
        where = joined(host, port)
        message = f"--metrics-listen: {where} cannot be listened on ({error.strerror or error}); choose another, or stop who listens there"
        raise Unavailable(message, reason="PORT_TAKEN") from None
    async with server:
        yield joined(host, server.sockets[0].getsockname()[1])


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pages: Pages) -> None:
    async with asyncio.timeout(READ_WITHIN_S):
        head = await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(ANSWER_WITHIN_S):
        page, with_body = await _answer(head, pages)
        lines = [f"HTTP/1.1 {page.status} {_STATUSES[page.status]}", f"Content-Type: {page.content_type}"]
        lines += [f"Content-Length: {len(page.body)}", "Cache-Control: no-store", "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + (page.body if with_body else b""))
        await writer.drain()


async def _answer(head: bytes, pages: Pages) -> tuple[Page, bool]:
    """The page, and whether its body is sent."""
    match head.split(b"\r\n", 1)[0].decode("latin-1").split(" "):
        case [("GET" | "HEAD") as method, target, version] if version.startswith("HTTP/1."):
            page = pages.get(target.partition("?")[0])
            if page is None:
                return _text(404, f"nothing here; there are {', '.join(sorted(pages))}"), method == "GET"
            try:
                return await page(), method == "GET"
            except Exception:
                log.exception("%s failed", target)
                return _text(500, "failed; the server's log says more"), method == "GET"
        case [_, _, version] if version.startswith("HTTP/1."):
            return _text(405, "only GET and HEAD"), True
        case _:
            return _text(400, "not an HTTP request"), True


def _text(status: int, text: str) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{text}\n".encode())
