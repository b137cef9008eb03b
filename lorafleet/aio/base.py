"""Gives every part of the client its base: a connection, a tenant, pages. Knows no service."""

import copy
from collections.abc import AsyncGenerator
from typing import Any, Self

from lorafleet.aio.connection import AsyncConnection
from lorafleet.transport import async_io


class AsyncBase:
    """One connection that acts for one tenant. Parts create their stubs at once: creating one on a closed channel crashes gRPC."""

    def __init__(self, connection: AsyncConnection, tenant: str) -> None:
        self.tenant = tenant
        self.connection = connection

    @property
    def parent(self) -> str:
        return f"tenants/{self.tenant}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls in progress: each raises FailedPrecondition."""
        await self.connection.close()

    def within(self, timeout_s: float) -> Self:
        """This client with a deadline: calls not done `timeout_s` from now raise DeadlineExceeded.

        It shares the connection; do not close it.
        """
        bounded = copy.copy(self)
        bounded.connection = self.connection.within(timeout_s)
        return bounded

    async def _pages(self, method: async_io.Method[Any], request: Any) -> AsyncGenerator[Any]:
        """All pages, each fetched when needed. Changes `request`."""
        while True:
            page = await self.connection.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
