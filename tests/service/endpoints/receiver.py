"""An HTTP server on loopback that takes what webhooks are sent, and answers as a test says."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """`answers`: statuses of the next answers, then `status`."""

    port: int = 0
    status: int = 204
    location: str = ""
    hangs: bool = False
    answers: list[int] = field(default_factory=list)
    got: list[Received] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)  # that TLS was asked for

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in head[1:] if ": " in line}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.got.append(Received(head[0].split(" ")[1], headers, body))
            if self.hangs:
                await asyncio.sleep(60)
            status = self.answers.pop(0) if self.answers else self.status
            location = f"Location: {self.location}\r\n" if self.location else ""
            writer.write(f"HTTP/1.1 {status} Said\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiver(tls: ssl.SSLContext | None = None, **fields: Any) -> AsyncIterator[Receiver]:
    one = Receiver(**fields)
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: one.names.append(name)
    server = await asyncio.start_server(one._serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


def kinds(got: Sequence[Received]) -> list[str]:
    return [one.json["type"] for one in got]
