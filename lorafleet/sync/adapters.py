"""The client's methods for the registry: adapters and their versions. Knows gRPC and the protos."""
# Made by scripts/make_sync_client.py from lorafleet/aio/adapters.py: change that one, then run `make sync-client`.

from collections.abc import Generator
from contextlib import closing
from typing import Any, cast

from lorafleet.sync.base import Base
from lorafleet.sync.connection import Connection
from lorafleet.v1 import adapter_service_pb2 as pb
from lorafleet.v1.adapter_service_pb2_grpc import AdapterServiceStub


class Adapters(Base):
    """The client's methods for adapters. A version is named `ADAPTER/versions/NUMBER`, or by an alias, `ADAPTER@production`."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self._adapter_rpc = cast(Any, AdapterServiceStub(connection.channel))  # generated, untyped

    def adapter_name(self, adapter: str) -> str:
        """The name of an adapter or a version: tenants/{tenant}/adapters/{adapter} for an id; a full name is returned unchanged."""
        return adapter if adapter.startswith("tenants/") else f"{self.parent}/adapters/{adapter}"

    def get_adapter(self, adapter: str) -> pb.Adapter:
        """The adapter, with the facts of its newest version. Raises NotFound."""
        return self.connection.call(self._adapter_rpc.GetAdapter, pb.GetAdapterRequest(name=self.adapter_name(adapter)))

    def list_adapters(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> Generator[pb.Adapter]:
        """All matching adapters, page by page; `filter` such as `family = sdxl AND labels.team = "red"`."""
        request = pb.ListAdaptersRequest(parent=self.parent, filter=filter, order_by=order_by, page_size=page_size)
        with closing(self._pages(self._adapter_rpc.ListAdapters, request)) as pages:
            for page in pages:
                for adapter in page.adapters:
                    yield adapter

    def get_adapter_version(self, version: str) -> pb.AdapterVersion:
        """The version with its files. Raises NotFound."""
        request = pb.GetAdapterVersionRequest(name=self.adapter_name(version))
        return self.connection.call(self._adapter_rpc.GetAdapterVersion, request)

    def list_adapter_versions(self, adapter: str, *, page_size: int = 0) -> Generator[pb.AdapterVersion]:
        """An adapter's versions, newest first and without their files, page by page. Raises NotFound."""
        request = pb.ListAdapterVersionsRequest(parent=self.adapter_name(adapter), page_size=page_size)
        with closing(self._pages(self._adapter_rpc.ListAdapterVersions, request)) as pages:
            for page in pages:
                for version in page.adapter_versions:
                    yield version

    def set_adapter_alias(
        self, adapter: str, alias: str, version: int, *, expected_version: int | None = None, etag: str = ""
    ) -> pb.AdapterAlias:
        """Point an alias of an adapter, such as production, to a version.

        With `expected_version`, only if it points there now (0: if it does not exist); with `etag`, only if it has not been moved since it
        had that etag. Raises Aborted, NotFound, and FailedPrecondition for a version that cannot be used.
        """
        request = pb.SetAdapterAliasRequest(
            name=f"{self.adapter_name(adapter)}@{alias}", version=version, expected_version=expected_version, etag=etag
        )
        return self.connection.call(self._adapter_rpc.SetAdapterAlias, request)

    def delete_adapter_alias(self, adapter: str, alias: str, *, etag: str = "") -> None:
        """Take an alias away, if there is one. Raises NotFound, and Aborted for an old `etag`."""
        request = pb.DeleteAdapterAliasRequest(name=f"{self.adapter_name(adapter)}@{alias}", etag=etag)
        self.connection.call(self._adapter_rpc.DeleteAdapterAlias, request)
