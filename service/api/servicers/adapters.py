"""Serves AdapterService: each method checks the request, makes one call and returns. Errors are raised, never caught."""

from lorafleet.v1 import adapter_service_pb2 as pb
from lorafleet.v1 import adapter_service_pb2_grpc as rpc
from service.access.authorization import Access
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.lists.adapters import list_adapters, list_versions
from service.core.resource_names import parse_adapter, parse_tenant, parse_version
from service.db.database import Database
from service.registry import reading


class AdapterServicer(rpc.AdapterServiceServicer):
    """The public API of the registry."""

    def __init__(self, access: Access, db: Database) -> None:
        self._access = access
        self._db = db

    async def GetAdapter(self, request: pb.GetAdapterRequest, context: Context) -> pb.Adapter:
        name = parse_adapter(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        return await reading.get_adapter(self._db, name)

    async def ListAdapters(self, request: pb.ListAdaptersRequest, context: Context) -> pb.ListAdaptersResponse:
        await self._access.require(Permission.VIEW, parse_tenant(request.parent))
        return await list_adapters(self._db, request)

    async def GetAdapterVersion(self, request: pb.GetAdapterVersionRequest, context: Context) -> pb.AdapterVersion:
        name = parse_version(request.name)
        await self._access.require(Permission.VIEW, name.adapter.tenant)
        return await reading.get_version(self._db, name)

    async def ListAdapterVersions(self, request: pb.ListAdapterVersionsRequest, context: Context) -> pb.ListAdapterVersionsResponse:
        await self._access.require(Permission.VIEW, parse_adapter(request.parent, "parent").tenant)
        return await list_versions(self._db, request)
