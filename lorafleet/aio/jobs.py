"""The client's methods for single jobs: create, list, watch, wait, cancel. Knows gRPC and the protos."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from lorafleet import spec_proto
from lorafleet.aio.base import AsyncBase
from lorafleet.aio.connection import AsyncConnection
from lorafleet.errors import DeadlineExceeded
from lorafleet.spec import Spec
from lorafleet.states import has_ended
from lorafleet.transport.streams import LogReader
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1.training_service_pb2_grpc import TrainingServiceStub


class AsyncJobs(AsyncBase):
    """The client's methods for jobs."""

    def __init__(self, connection: AsyncConnection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self._rpc = cast(Any, TrainingServiceStub(connection.channel))  # generated, untyped; requests and responses are typed here

    def name(self, job: str) -> str:
        """The name of a job: tenants/{tenant}/jobs/{job} for an id; a full name is returned unchanged."""
        return job if "/" in job else f"{self.parent}/jobs/{job}"

    async def create(self, spec: Spec, *, job_id: str = "", request_id: str = "", validate_only: bool = False) -> pb.TrainingJob:
        """Submit a job; once this returns it cannot be lost. Raises InvalidSpec, AlreadyExists.

        A `request_id` (a UUID) makes the call safe to repeat across processes; without one it is safe within this call.
        """
        request = pb.CreateTrainingJobRequest(
            parent=self.parent,
            training_job=pb.TrainingJob(spec=spec_proto.to_proto(spec)),
            training_job_id=job_id,
            request_id=request_id or str(uuid.uuid4()),
            validate_only=validate_only,
        )
        return await self.connection.call(self._rpc.CreateTrainingJob, request)

    async def get(self, job: str) -> pb.TrainingJob:
        """The job as it is now. Raises NotFound."""
        return await self.connection.call(self._rpc.GetTrainingJob, pb.GetTrainingJobRequest(name=self.name(job)))

    async def list(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> AsyncGenerator[pb.TrainingJob]:
        """All matching jobs, fetched page by page; `filter` such as `state = RUNNING AND labels.team = "red"`."""
        request = pb.ListTrainingJobsRequest(parent=self.parent, filter=filter, order_by=order_by, page_size=page_size)
        async with aclosing(self._pages(self._rpc.ListTrainingJobs, request)) as pages:
            async for page in pages:
                for job in page.training_jobs:
                    yield job

    async def cancel(self, job: str, *, etag: str = "") -> pb.TrainingJob:
        """Ask a job to stop; it saves a checkpoint first. Raises NotFound, FailedPrecondition.

        With `etag`, only if the job has not changed since it had that etag. Raises Aborted.
        """
        return await self.connection.call(self._rpc.CancelTrainingJob, pb.CancelTrainingJobRequest(name=self.name(job), etag=etag))

    async def sign_artifact(self, job: str, *, expire_s: int = 0) -> pb.SignArtifactResponse:
        """URLs with which anyone can download a job's artifact, for `expire_s` seconds (default: an hour).

        Raises NotFound; FailedPrecondition if there is no artifact or the store cannot sign.
        """
        request = pb.SignArtifactRequest(name=self.name(job), expire_s=expire_s)
        return await self.connection.call(self._rpc.SignArtifact, request)

    async def watch(self, job: str = "", *, timeout_s: float | None = None) -> AsyncGenerator[pb.TrainingJob]:
        """The job now, then after every change until it has ended; without `job`, all jobs of the tenant, endlessly.

        Resumes when the server returns. After a long absence a job may be repeated in its current state, and changes
        in between may be merged into one. Raises NotFound, and DeadlineExceeded, a TimeoutError, after `timeout_s`.
        """
        name = self.name(job) if job else ""
        parent = name.partition("/jobs/")[0] or self.parent
        request = pb.WatchTrainingJobsRequest(parent=parent, name=name)
        async with aclosing(self.connection.watch(self._rpc.WatchTrainingJobs, request, timeout_s)) as events:
            async for event in events:
                if not event.HasField("training_job"):
                    continue
                yield event.training_job
                if name and has_ended(event.training_job):
                    return

    async def wait(self, job: str, *, timeout_s: float | None = None) -> pb.TrainingJob:
        """The job once it has ended, whatever the outcome. Raises NotFound, and DeadlineExceeded after `timeout_s`."""
        async with aclosing(self.watch(job, timeout_s=timeout_s)) as changes:
            async for change in changes:
                if has_ended(change):
                    return change
        raise DeadlineExceeded(f"the watch of {job} ended before the job")

    async def logs(
        self, job: str, *, follow: bool = False, attempt: int = 0, timeout_s: float | None = None
    ) -> AsyncGenerator[pb.StreamTrainingJobLogsResponse]:
        """A job's log in pieces of whole lines; with `follow`, until the job ends.

        A log only grows, so after an interruption what was already read is skipped. Raises NotFound, and
        DeadlineExceeded after `timeout_s`.
        """
        request = pb.StreamTrainingJobLogsRequest(name=self.name(job), follow=follow, attempt=attempt)
        reader = LogReader()
        pieces = self.connection.streams(
            self._rpc.StreamTrainingJobLogs, request, self.connection.deadline(timeout_s), started=reader.start_again
        )
        async with aclosing(pieces):
            async for piece in pieces:
                if fresh := reader.fresh(piece):
                    yield fresh
