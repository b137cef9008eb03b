"""Both clients behind one face, so that each test is written once: the blocking one runs in a thread and is awaited as well."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

from lorafleet.client import AsyncClient, Client

KINDS = ("sync", "async")


@asynccontextmanager
async def opened(kind: str, server: str, **options: Any) -> AsyncIterator[Any]:
    """An AsyncClient, or a Client that is awaited like one."""
    if kind == "async":
        async with AsyncClient(server, **options) as client:
            yield client
    else:
        with Client(server, **options) as client:
            yield Awaited(client)


class Awaited:
    """A blocking client whose methods are called in threads."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found) or name in {"name", "batch_name"}:
            return found
        if name == "within":
            return lambda timeout_s: Awaited(found(timeout_s))
        return _generating(found) if inspect.isgeneratorfunction(found) else _calling(found)


def _calling(method: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(method, *arguments, **options)

    return call


def _generating(method: Callable[..., Generator[Any]]) -> Callable[..., AsyncGenerator[Any]]:
    async def generate(*arguments: Any, **options: Any) -> AsyncGenerator[Any]:
        items, nothing = method(*arguments, **options), object()
        try:
            while (item := await asyncio.to_thread(next, items, nothing)) is not nothing:
                yield item
        finally:
            await asyncio.to_thread(items.close)

    return generate
