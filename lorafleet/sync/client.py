"""The client: create, watch and end training jobs from Python. Knows gRPC and the protos, and nothing of how jobs run.

    with Client("127.0.0.1:7600") as client:
        job = client.create(spec)
        for job in client.watch(job.name):
            print(job.progress.step, job.progress.loss)

Calls are retried while the server is unreachable, so all of them are safe to repeat. Errors are those of lorafleet.errors.
"""
# Made by scripts/make_sync_client.py from lorafleet/aio/client.py: change that one, then run `make sync-client`.

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT
from lorafleet.credentials import Credentials
from lorafleet.sync.administration import Administration
from lorafleet.sync.batches import Batches
from lorafleet.sync.connection import Connection
from lorafleet.sync.downloads import Downloads
from lorafleet.sync.webhooks import Webhooks
from lorafleet.transport.retry import Patience


class Client(Downloads, Batches, Webhooks, Administration):
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
        super().__init__(Connection(server, credentials, patience, call_timeout_s), tenant)
