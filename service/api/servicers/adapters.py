"""Serves AdapterService: each method checks the request, makes one call and returns. Errors are raised, never caught."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from lorafleet.v1 import adapter_service_pb2 as pb
from lorafleet.v1 import adapter_service_pb2_grpc as rpc
from service.access.authorization import Access
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.lists.adapters import list_adapters, list_versions
from service.api.signing import sign_version
from service.api.watch.adapters import AdapterFeed, AdapterWatch, scope_of
from service.control.retention import Rule
from service.core.resource_names import (
    AliasName,
    invalid,
    parse_adapter,
    parse_alias,
    parse_number,
    parse_request_id,
    parse_tenant,
    parse_version,
)
from service.db.database import Database
from service.db.retrying import again
from service.registry import aliases, deletion, looking
from service.registry.aliases import AliasMove
from service.registry.deletion import PRODUCTION
from service.registry.imports import Imports, NewImport
from service.store.client import Store
from service.untrusted.parsing import Parser


class AdapterServicer(rpc.AdapterServiceServicer):
    """The public API of the registry."""

    def __init__(self, access: Access, db: Database, store: Store, parser: Parser, imports: Imports, feed: AdapterFeed) -> None:
        self._access = access
        self._db = db
        self._store = store
        self._parser = parser
        self._imports = imports
        self._feed = feed

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
        caller = await self._access.require(_to_move(name), name.adapter.tenant)
        return await again(lambda: aliases.delete_alias(self._db, name, request.etag, caller))

    async def UpdateAdapter(self, request: pb.UpdateAdapterRequest, context: Context) -> pb.Adapter:
        name = parse_adapter(request.adapter.name, "adapter.name")
        await self._access.require(Permission.OPERATE, name.tenant)
        if list(request.update_mask.paths) != ["retention"]:
            raise invalid("update_mask", 'is not "retention", all that can be changed of an adapter')
        asked = request.adapter.retention
        rule = Rule(keep_newest=asked.keep_newest, keep_days=asked.keep_days)
        return await again(lambda: deletion.set_retention(self._db, name, rule, request.adapter.etag))

    async def DeleteAdapter(self, request: pb.DeleteAdapterRequest, context: Context) -> pb.Adapter:
        name = parse_adapter(request.name)
        caller = await self._access.require(Permission.SUBMIT, name.tenant)
        return await again(lambda: deletion.delete_adapter(self._db, name, request.etag, caller))

    async def UndeleteAdapter(self, request: pb.UndeleteAdapterRequest, context: Context) -> pb.Adapter:
        name = parse_adapter(request.name)
        caller = await self._access.require(Permission.SUBMIT, name.tenant)
        return await again(lambda: deletion.undelete_adapter(self._db, name, caller))

    async def DeleteAdapterVersion(self, request: pb.DeleteAdapterVersionRequest, context: Context) -> pb.AdapterVersion:
        name = parse_number(request.name)
        caller = await self._access.require(Permission.SUBMIT, name.adapter.tenant)
        return await again(lambda: deletion.delete_version(self._db, name, caller))

    async def UndeleteAdapterVersion(self, request: pb.UndeleteAdapterVersionRequest, context: Context) -> pb.AdapterVersion:
        name = parse_number(request.name)
        caller = await self._access.require(Permission.SUBMIT, name.adapter.tenant)
        return await again(lambda: deletion.undelete_version(self._db, name, caller))

    async def SignAdapterVersion(self, request: pb.SignAdapterVersionRequest, context: Context) -> pb.SignAdapterVersionResponse:
        name = parse_version(request.name)
        await self._access.require(Permission.VIEW, name.adapter.tenant)
        return await sign_version(self._db, self._store, name, request.expire_s, self._parser)

    async def ImportAdapter(self, request: pb.ImportAdapterRequest, context: Context) -> pb.AdapterVersion:
        name = parse_adapter(request.name)
        caller = await self._access.require(Permission.SUBMIT, name.tenant)
        new = NewImport(
            name=name,
            uri=request.uri,
            family=request.family,
            trigger=request.trigger,
            labels=dict(request.labels),
            sha256=request.sha256,
            parents=list(request.parents),
            request_id=parse_request_id(request.request_id),
        )
        return await again(lambda: self._imports.start(new, caller))

    async def WatchAdapters(self, request: pb.WatchAdaptersRequest, context: Context) -> AsyncIterator[pb.WatchAdaptersResponse]:
        scope = scope_of(request)
        await self._access.require(Permission.VIEW, scope.tenant)
        watch = AdapterWatch(db=self._db, scope=scope, feed=self._feed)
        async with aclosing(watch.events(request.resume_token)) as events:
            async for event in events:
                await self._access.require(Permission.VIEW, scope.tenant)  # removed members stop watching
                yield event


def _to_move(name: AliasName) -> Permission:
    """What is in production is everybody's: moving it is as ending the others' jobs."""
    return Permission.OPERATE if name.alias == PRODUCTION else Permission.SUBMIT
