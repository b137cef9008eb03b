"""WatchBatch: the watch of a batch's jobs, with the batch's counts beside the changes that they come from."""

import asyncio
from collections.abc import AsyncIterator

from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.api.watch import Scope, Watch
from service.batches import existing, message
from service.db.database import Database
from service.names import BatchName


async def watch_batch(db: Database, name: BatchName, resume_token: str, stopping: asyncio.Event) -> AsyncIterator[pb.WatchBatchResponse]:
    """Without end. Events that are read together share one reading of the counts: the last of them carries it when it is
    news, and every heartbeat does. Raises NotFound, and what a Watch raises."""
    async with db.snapshot() as tx:
        uid = (await existing(tx, name)).uid
    watch = Watch(db=db, scope=Scope(tenant=name.tenant, batch_uid=uid), stopping=stopping)
    told = pb.Batch()
    async for moment in watch.moments(resume_token):
        answers = [_answer(event) for event in moment]
        if not answers[-1].snapshot:  # a snapshot ends with a heartbeat
            counted = await _counted(db, name)
            if counted != told or not answers[-1].HasField("training_job"):
                answers[-1].batch.CopyFrom(counted)
                told = counted
        for answer in answers:
            yield answer


async def _counted(db: Database, name: BatchName) -> pb.Batch:
    async with db.snapshot() as tx:
        return await message(tx, await existing(tx, name))


def _answer(event: jobs_pb.WatchTrainingJobsResponse) -> pb.WatchBatchResponse:
    job = event.training_job if event.HasField("training_job") else None
    return pb.WatchBatchResponse(training_job=job, resume_token=event.resume_token, snapshot=event.snapshot)
