"""The client's methods for webhooks. Knows gRPC and the protos."""
# Made by scripts/make_sync_client.py from lorafleet/aio/webhooks.py: change that one, then run `make sync-client`.

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, cast

from lorafleet.sync.base import Base
from lorafleet.sync.connection import Connection
from lorafleet.v1 import webhook_service_pb2 as pb
from lorafleet.v1.webhook_service_pb2_grpc import WebhookServiceStub


class Webhooks(Base):
    """The client's methods for webhooks, which admins of the tenant may call."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self._webhook_rpc = cast(Any, WebhookServiceStub(connection.channel))  # generated, untyped

    def webhook_name(self, webhook: str) -> str:
        """The name of a webhook: tenants/{tenant}/webhooks/{webhook} for an id; a full name is returned unchanged."""
        return webhook if "/" in webhook else f"{self.parent}/webhooks/{webhook}"

    def create_webhook(self, webhook_id: str, url: str, *, event_types: Sequence[str] = ()) -> pb.CreateWebhookResponse:
        """Have an endpoint told what happens to adapters from now on. The secret of its signatures is in the answer, and never shown again.

        Raises InvalidInput for a URL that nothing is sent to, and AlreadyExists.
        """
        webhook = pb.Webhook(url=url, event_types=event_types)
        request = pb.CreateWebhookRequest(parent=self.parent, webhook_id=webhook_id, webhook=webhook)
        return self.connection.call(self._webhook_rpc.CreateWebhook, request)

    def get_webhook(self, webhook: str) -> pb.Webhook:
        """The webhook, and how its deliveries go. Raises NotFound."""
        return self.connection.call(self._webhook_rpc.GetWebhook, pb.GetWebhookRequest(name=self.webhook_name(webhook)))

    def list_webhooks(self, *, page_size: int = 0) -> Generator[pb.Webhook]:
        """The tenant's webhooks, by id, page by page."""
        request = pb.ListWebhooksRequest(parent=self.parent, page_size=page_size)
        with closing(self._pages(self._webhook_rpc.ListWebhooks, request)) as pages:
            for page in pages:
                for webhook in page.webhooks:
                    yield webhook

    def resume_webhook(self, webhook: str) -> pb.Webhook:
        """Go on with a paused webhook, by the event that it had not taken. Raises NotFound."""
        return self.connection.call(self._webhook_rpc.ResumeWebhook, pb.ResumeWebhookRequest(name=self.webhook_name(webhook)))

    def delete_webhook(self, webhook: str) -> None:
        """Remove a webhook, if there is one, and what it has not been told yet."""
        self.connection.call(self._webhook_rpc.DeleteWebhook, pb.DeleteWebhookRequest(name=self.webhook_name(webhook)))
