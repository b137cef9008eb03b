"""Requests as JSON lines over TCP: how replicas speak with the simulated backend, so that a proxy can stand in between."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

TIMEOUT_S = 3.0


async def ask(port: int, verb: str, **fields: Any) -> Any:
    """One request on a connection of its own. Raises OSError, TimeoutError and ValueError when there is no whole answer."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        try:
            writer.write(json.dumps({"verb": verb, **fields}).encode() + b"\n")
            await writer.drain()
            return json.loads(await reader.readline())
        finally:
            writer.close()


async def serve(port: int, answer: Callable[[dict[str, Any]], Awaitable[Any]]) -> asyncio.Server:
    """Answers requests until it is closed."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line.endswith(b"\n"):
                writer.write(json.dumps(await answer(json.loads(line))).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass  # the caller has gone
        finally:
            writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", port, limit=2**24)
