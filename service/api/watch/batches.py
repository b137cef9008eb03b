"""Serves WatchBatch: the watch of a batch's jobs, with the batch's counts beside the changes that they come from."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import Scope
from service.core.resource_names import BatchName
from service.db.database import Database
from service.jobs.batches import existing, message


async def watch_batch(db: Database, name: BatchName, resume_token: str, feed: Feed) -> AsyncGenerator[pb.WatchBatchResponse]:
    """Without end. Events that are read together share one reading of the counts: the last of them carries it when it is
    news, and every heartbeat does. Raises NotFound, and what a Watch raises."""
    async with db.snapshot() as tx:
        uid = (await existing(tx, name)).uid
    watch = Watch(db=db, scope=Scope(tenant=name.tenant, batch_uid=uid), feed=feed)
    sent = pb.Batch()
    async with aclosing(watch.moments(resume_token)) as moments:
        async for moment in moments:
            answers = [_answer(event) for event in moment]
            if not answers[-1].snapshot:  # a snapshot ends with a heartbeat
                counted = await feed.counted(uid, watch.seq, partial(_counted, db, name))
                if counted != sent or not answers[-1].HasField("training_job"):
                    answers[-1].batch.CopyFrom(counted)
                    sent = counted
            for answer in answers:
                yield answer


async def _counted(db: Database, name: BatchName) -> pb.Batch:
    async with db.snapshot() as tx:
        return await message(tx, await existing(tx, name))


def _answer(event: jobs_pb.WatchTrainingJobsResponse) -> pb.WatchBatchResponse:
    job = event.training_job if event.HasField("training_job") else None
    return pb.WatchBatchResponse(training_job=job, resume_token=event.resume_token, snapshot=event.snapshot)
