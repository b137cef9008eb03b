"""Serves AdapterService: each method checks the request, makes one call and returns. Errors are raised, never caught."""

from lorafleet.v1 import adapter_service_pb2 as pb
from lorafleet.v1 import adapter_service_pb2_grpc as rpc
from service.access.authorization import Access
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.lists.adapters import list_adapters, list_versions
from service.core.resource_names import AliasName, parse_adapter, parse_alias, parse_tenant, parse_version
from service.db.database import Database
from service.db.retrying import again
from service.registry import aliases, looking
from service.registry.aliases import AliasMove

PRODUCTION = "production"


class AdapterServicer(rpc.AdapterServiceServicer):
    """The public API of the registry."""

    def __init__(self, access: Access, db: Database) -> None:
        self._access = access
        self._db = db

    async def GetAdapter(self, request: pb.GetAdapterRequest, context: Context) -> pb.Adapter:
        name = parse_adapter(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        return await looking.get_adapter(self._db, name)

    async def ListAdapters(self, request: pb.ListAdaptersRequest, context: Context) -> pb.ListAdaptersResponse:
        await self._access.require(Permission.VIEW, parse_tenant(request.parent))
        return await list_adapters(self._db, request)

    async def GetAdapterVersion(self, request: pb.GetAdapterVersionRequest, context: Context) -> pb.AdapterVersion:
        name = parse_version(request.name)
        await self._access.require(Permission.VIEW, name.adapter.tenant)
        return await looking.get_version(self._db, name)

    async def ListAdapterVersions(self, request: pb.ListAdapterVersionsRequest, context: Context) -> pb.ListAdapterVersionsResponse:
        await self._access.require(Permission.VIEW, parse_adapter(request.parent, "parent").tenant)
        return await list_versions(self._db, request)

    async def SetAdapterAlias(self, request: pb.SetAdapterAliasRequest, context: Context) -> pb.AdapterAlias:
        name = parse_alias(request.name)
        caller = await self._access.require(_to_move(name), name.adapter.tenant)
        expected = request.expected_version if request.HasField("expected_version") else None
        move = AliasMove(name=name, number=aliases.check_number(request.version), expected=expected, etag=request.etag)
        return await again(lambda: aliases.set_alias(self._db, move, caller))

    async def DeleteAdapterAlias(self, request: pb.DeleteAdapterAliasRequest, context: Context) -> pb.DeleteAdapterAliasResponse:
        name = parse_alias(request.name)
        await self._access.require(_to_move(name), name.adapter.tenant)
        return await again(lambda: aliases.delete_alias(self._db, name, request.etag))


def _to_move(name: AliasName) -> Permission:
    """What is in production is everybody's: moving it is as ending the others' jobs."""
    return Permission.OPERATE if name.alias == PRODUCTION else Permission.SUBMIT
