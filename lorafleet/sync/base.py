"""What every part of the client stands on: a connection, a tenant, pages. Knows no service."""
# Made by scripts/make_sync_client.py from lorafleet/aio/base.py: change that one, then run `make sync-client`.

import copy
from collections.abc import Generator
from typing import Any, Self

from lorafleet import sync_io
from lorafleet.sync.connection import Connection


class Base:
    """One connection that acts for one tenant. Parts make their stubs at once: making one on a closed channel crashes gRPC."""

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
        """Ends every call that is under way: each raises FailedPrecondition."""
        self.connection.close()

    def within(self, timeout_s: float) -> Self:
        """This client, but all that is called through it has to be done `timeout_s` from now, or raises DeadlineExceeded.

        It shares the connection, and is not to be closed.
        """
        bounded = copy.copy(self)
        bounded.connection = self.connection.within(timeout_s)
        return bounded

    def _pages(self, method: sync_io.Method[Any], request: Any) -> Generator[Any]:
        """Every page, each asked for when it is needed. `request` is changed."""
        while True:
            page = self.connection.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
