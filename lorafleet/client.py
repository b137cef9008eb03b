"""The client: create, watch and end training jobs from Python, blocking or not.

    with Client("127.0.0.1:7600") as client:                      async with AsyncClient("127.0.0.1:7600") as client:
        job = client.create(spec)                                     job = await client.create(spec)
        for job in client.watch(job.name):                            async for job in client.watch(job.name):
            print(job.progress.step, job.progress.loss)                   print(job.progress.step, job.progress.loss)

Both come from one source. Written by hand is `lorafleet.aio`; scripts/make_sync_client.py makes `lorafleet.sync` of it, which is
committed, so that editors, type checkers and stack traces see plain code with real signatures on both sides: a method table or a
driver of generators would show them Any. docs/client.md says what both promise.
"""

from lorafleet.aio.client import AsyncClient
from lorafleet.credentials import Credentials
from lorafleet.sync.client import Client
from lorafleet.transport.retry import Patience

__all__ = ["AsyncClient", "Client", "Credentials", "Patience"]
