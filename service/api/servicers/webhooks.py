"""Serves WebhookService: each method checks the request, makes one call and returns. Errors are raised, never caught."""

from lorafleet.v1 import webhook_service_pb2 as pb
from lorafleet.v1 import webhook_service_pb2_grpc as rpc
from service.access.authorization import Access
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.lists import paging
from service.core.resource_names import check_job_id, parse_held, parse_tenant
from service.db import webhooks as rows_of
from service.db.database import Database
from service.db.retrying import again
from service.endpoints.delivery import Sender
from service.registry import webhooks


class WebhookServicer(rpc.WebhookServiceServicer):
    """The public API of webhooks."""

    def __init__(self, access: Access, db: Database, endpoints: Sender) -> None:
        self._access = access
        self._db = db
        self._endpoints = endpoints

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, context: Context) -> pb.CreateWebhookResponse:
        tenant = parse_tenant(request.parent)
        caller = await self._access.require(Permission.MANAGE, tenant)
        webhook_id = check_job_id(request.webhook_id, "webhook_id")
        return await again(lambda: webhooks.create(self._db, self._endpoints, tenant, webhook_id, request.webhook, caller))

    async def GetWebhook(self, request: pb.GetWebhookRequest, context: Context) -> pb.Webhook:
        return await webhooks.get(self._db, *await self._named(request.name))

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: Context) -> pb.ListWebhooksResponse:
        tenant, size = parse_tenant(request.parent), paging.size_of(request.page_size)
        await self._access.require(Permission.MANAGE, tenant)
        query = (request.parent, "webhooks")
        behind = paging.to_text(paging.place(query, request.page_token)) if request.page_token else ""
        async with self._db.snapshot() as tx:
            rows = await rows_of.page(tx, tenant, behind=behind, size=size + 1)
        shown = [webhooks.message(row) for row in rows[:size]]
        num = paging.fitting(shown)
        token = paging.token(query, behind=rows[num - 1].webhook_id) if len(rows) > num else ""
        return pb.ListWebhooksResponse(webhooks=shown[:num], next_page_token=token)

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, context: Context) -> pb.DeleteWebhookResponse:
        tenant, webhook_id = await self._named(request.name)
        return await again(lambda: webhooks.delete(self._db, tenant, webhook_id))

    async def ResumeWebhook(self, request: pb.ResumeWebhookRequest, context: Context) -> pb.Webhook:
        tenant, webhook_id = await self._named(request.name)
        return await again(lambda: webhooks.resume(self._db, tenant, webhook_id))

    async def _named(self, name: str) -> tuple[str, str]:
        """Tenant and id, once the caller is known to manage that tenant."""
        tenant, webhook_id = parse_held(name, "webhooks")
        await self._access.require(Permission.MANAGE, tenant)
        return tenant, webhook_id
