"""The client: create, watch and end training jobs from Python. Knows gRPC and the protos, and nothing of how jobs run.

    async with AsyncClient("127.0.0.1:7600") as client:
        job = await client.create(spec)
        async for job in client.watch(job.name):
            print(job.progress.step, job.progress.loss)

Calls are retried while the server is unreachable, so all of them are safe to repeat. Errors are those of lorafleet.errors.
"""

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.aio.administration import AsyncAdministration
from lorafleet.aio.batches import AsyncBatches
from lorafleet.aio.connection import AsyncConnection
from lorafleet.aio.downloads import AsyncDownloads
from lorafleet.aio.webhooks import AsyncWebhooks
from lorafleet.credentials import Credentials
from lorafleet.transport.retry import Patience


class AsyncClient(AsyncDownloads, AsyncBatches, AsyncWebhooks, AsyncAdministration):
    """One connection to a control plane, acting for one tenant.

    Each attempt of a call takes at most `call_timeout_s`; if the server is unreachable, it is retried for `patience.total_s`.
    `within` sets one deadline over all of that. A client may be used by any number of callers at once. Raises InvalidInput for
    unusable credentials.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        tenant: str = DEFAULT_TENANT,
        credentials: Credentials = Credentials(),  # noqa: B008 - frozen
        patience: Patience = Patience(),  # noqa: B008 - frozen
        call_timeout_s: float = 20.0,
    ) -> None:
        super().__init__(AsyncConnection(server, credentials, patience, call_timeout_s), tenant)
