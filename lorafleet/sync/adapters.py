"""The client's methods for the registry: adapters and their versions. Knows gRPC and the protos."""
# Made by scripts/make_sync_client.py from lorafleet/aio/adapters.py: change that one, then run `make sync-client`.

import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from google.protobuf.field_mask_pb2 import FieldMask

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

    def list_adapters(
        self, *, filter: str = "", order_by: str = "", page_size: int = 0, show_deleted: bool = False
    ) -> Generator[pb.Adapter]:
        """All matching adapters, page by page; `filter` such as `family = sdxl AND labels.team = "red"`."""
        request = pb.ListAdaptersRequest(
            parent=self.parent, filter=filter, order_by=order_by, page_size=page_size, show_deleted=show_deleted
        )
        with closing(self._pages(self._adapter_rpc.ListAdapters, request)) as pages:
            for page in pages:
                for adapter in page.adapters:
                    yield adapter

    def get_adapter_version(self, version: str) -> pb.AdapterVersion:
        """The version with its files. Raises NotFound."""
        request = pb.GetAdapterVersionRequest(name=self.adapter_name(version))
        return self.connection.call(self._adapter_rpc.GetAdapterVersion, request)

    def list_adapter_versions(self, adapter: str, *, page_size: int = 0, show_deleted: bool = False) -> Generator[pb.AdapterVersion]:
        """An adapter's versions, newest first and without their files, page by page. Raises NotFound."""
        request = pb.ListAdapterVersionsRequest(parent=self.adapter_name(adapter), page_size=page_size, show_deleted=show_deleted)
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

    def set_adapter_retention(self, adapter: str, *, keep_newest: int = 0, keep_days: int = 0, etag: str = "") -> pb.Adapter:
        """Have versions deleted that are neither among the newest, nor young, nor have an alias; both 0: none. Raises NotFound, Aborted."""
        rule = pb.RetentionRule(keep_newest=keep_newest, keep_days=keep_days)
        changed = pb.Adapter(name=self.adapter_name(adapter), etag=etag, retention=rule)
        request = pb.UpdateAdapterRequest(adapter=changed, update_mask=FieldMask(paths=["retention"]))
        return self.connection.call(self._adapter_rpc.UpdateAdapter, request)

    def delete_adapter(self, adapter: str, *, etag: str = "") -> pb.Adapter:
        """Delete an adapter with its versions; for 30 days it can be had back. Raises NotFound, Aborted, and FailedPrecondition for what is
        in production."""
        return self.connection.call(self._adapter_rpc.DeleteAdapter, pb.DeleteAdapterRequest(name=self.adapter_name(adapter), etag=etag))

    def undelete_adapter(self, adapter: str) -> pb.Adapter:
        """Take the deletion of an adapter back. Raises NotFound once it is purged."""
        return self.connection.call(self._adapter_rpc.UndeleteAdapter, pb.UndeleteAdapterRequest(name=self.adapter_name(adapter)))

    def delete_adapter_version(self, version: str) -> pb.AdapterVersion:
        """Delete a version; for 30 days it can be had back. Raises NotFound, and FailedPrecondition for one that an alias points to."""
        request = pb.DeleteAdapterVersionRequest(name=self.adapter_name(version))
        return self.connection.call(self._adapter_rpc.DeleteAdapterVersion, request)

    def undelete_adapter_version(self, version: str) -> pb.AdapterVersion:
        """Take the deletion of a version back. Raises NotFound, and FailedPrecondition once it is purged."""
        request = pb.UndeleteAdapterVersionRequest(name=self.adapter_name(version))
        return self.connection.call(self._adapter_rpc.UndeleteAdapterVersion, request)

    def sign_adapter_version(self, version: str, *, expire_s: int = 0) -> pb.SignAdapterVersionResponse:
        """URLs with which anyone can download a version, for `expire_s` seconds (default: an hour).

        Raises NotFound; FailedPrecondition if it is purged or the store cannot sign.
        """
        request = pb.SignAdapterVersionRequest(name=self.adapter_name(version), expire_s=expire_s)
        return self.connection.call(self._adapter_rpc.SignAdapterVersion, request)

    def import_adapter(
        self,
        adapter: str,
        uri: str,
        *,
        family: str = "",
        trigger: str = "",
        labels: Mapping[str, str] | None = None,
        sha256: str = "",
        parents: Sequence[str] = (),
        request_id: str = "",
    ) -> pb.AdapterVersion:
        """Make a version of a file that was made elsewhere: a .safetensors file, or PEFT's folder. It is PENDING until it is copied.

        `parents`: versions that it was made of. Raises NotFound for those that there are not, and InvalidInput for a file that is no
        adapter, as far as its header tells; what is found later makes the version DAMAGED. A `request_id` (a UUID) makes the call safe to
        repeat across processes; without one it is safe within this call.
        """
        request = pb.ImportAdapterRequest(
            name=self.adapter_name(adapter),
            uri=uri,
            family=family,
            trigger=trigger,
            labels=labels,
            sha256=sha256,
            parents=[self.adapter_name(parent) for parent in parents],
            request_id=request_id or str(uuid.uuid4()),
        )
        return self.connection.call(self._adapter_rpc.ImportAdapter, request)

    def watch_adapters(self, adapter: str = "", *, timeout_s: float | None = None) -> Generator[pb.WatchAdaptersResponse]:
        """The tenant's adapters, or one, as they are, then everything that happens to them, endlessly: `event` says what.

        Resumes when the server returns. After a long absence adapters may be repeated as they are, without the events between. Raises
        NotFound, and DeadlineExceeded, a TimeoutError, after `timeout_s`.
        """
        name = self.adapter_name(adapter) if adapter else ""
        request = pb.WatchAdaptersRequest(parent=name.partition("/adapters/")[0] or self.parent, name=name)
        with closing(self.connection.watch(self._adapter_rpc.WatchAdapters, request, timeout_s)) as events:
            for event in events:
                if event.HasField("adapter"):
                    yield event
