"""Gives every part of the client its base: a connection, a tenant, pages. Knows no service."""
# Made by scripts/make_sync_client.py from lorafleet/aio/base.py: change that one, then run `make sync-client`.

import copy
from collections.abc import Generator
from typing import Any, Self

from lorafleet.sync.connection import Connection
from lorafleet.transport import sync_io


class Base:
    """One connection that acts for one tenant. Parts create their stubs at once: creating one on a closed channel crashes gRPC."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self.tenant = tenant
        self.connection = connection

    @property
    def parent(self) -> str:
        return f"tenants/{self.tenant}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls in progress: each raises FailedPrecondition."""
        self.connection.close()

    def within(self, timeout_s: float) -> Self:
        """This client with a deadline: calls not done `timeout_s` from now raise DeadlineExceeded.

        It shares the connection; do not close it.
        """
        bounded = copy.copy(self)
        bounded.connection = self.connection.within(timeout_s)
        return bounded

    def _pages(self, method: sync_io.Method[Any], request: Any) -> Generator[Any]:
        """All pages, each fetched when needed. Changes `request`."""
        while True:
            page = self.connection.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
