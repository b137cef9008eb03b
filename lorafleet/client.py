"""The client: create, watch and end training jobs from Python. Knows gRPC and the protos, and nothing of how jobs run.

    with Client("127.0.0.1:7600") as client:
        job = client.create(spec)
        for job in client.watch(job.name):
            print(job.progress.step, job.progress.loss)

Calls ride out a server that is away for a while, so all of them are safe to repeat. Errors are those of lorafleet.errors.
"""

import uuid
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Self, cast

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT, spec_proto
from lorafleet.batches import Batches
from lorafleet.connection import Connection, deadline_after
from lorafleet.errors import Unavailable
from lorafleet.retry import Patience, Tries
from lorafleet.spec import Spec
from lorafleet.states import has_ended
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1.training_service_pb2_grpc import TrainingServiceStub


class Client(Batches):
    """One connection to a control plane, acting for one tenant. Safe to share between threads. Batches: see `Batches`."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        tenant: str = DEFAULT_TENANT,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        call_timeout_s: float = 20.0,
    ) -> None:
        super().__init__(Connection(server, patience, call_timeout_s), tenant)
        self._rpc = cast(Any, TrainingServiceStub(self.connection.channel))  # generated, untyped; requests and answers are typed here

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def name(self, job: str) -> str:
        """tenants/{tenant}/jobs/{job} of a job's id; a full name stays as it is."""
        return job if "/" in job else f"{self.parent}/jobs/{job}"

    def create(self, spec: Spec, *, job_id: str = "", request_id: str = "", validate_only: bool = False) -> pb.TrainingJob:
        """Submit a job; it is safe once this returns. Raises InvalidSpec, AlreadyExists.

        A `request_id` (a UUID) makes the call safe to repeat across processes; without one it is safe within this call.
        """
        request = pb.CreateTrainingJobRequest(
            parent=self.parent,
            training_job=pb.TrainingJob(spec=spec_proto.to_proto(spec)),
            training_job_id=job_id,
            request_id=request_id or str(uuid.uuid4()),
            validate_only=validate_only,
        )
        return self.connection.call(self._rpc.CreateTrainingJob, request)

    def get(self, job: str) -> pb.TrainingJob:
        """The job as it is now. Raises NotFound."""
        return self.connection.call(self._rpc.GetTrainingJob, pb.GetTrainingJobRequest(name=self.name(job)))

    def list(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> Iterator[pb.TrainingJob]:
        """Every job that matches, page by page; `filter` as in `state = RUNNING AND labels.team = "red"`."""
        request = pb.ListTrainingJobsRequest(parent=self.parent, filter=filter, order_by=order_by, page_size=page_size)
        while True:
            page: pb.ListTrainingJobsResponse = self.connection.call(self._rpc.ListTrainingJobs, request)
            yield from page.training_jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def cancel(self, job: str) -> pb.TrainingJob:
        """Ask a job to stop; it saves a checkpoint first. Raises NotFound, FailedPrecondition."""
        return self.connection.call(self._rpc.CancelTrainingJob, pb.CancelTrainingJobRequest(name=self.name(job)))

    def watch(self, job: str = "", *, timeout_s: float | None = None) -> Iterator[pb.TrainingJob]:
        """A job as it is, then after every change until it has ended; without `job`, all of the tenant's, for ever.

        Goes on where it was when the server comes back. After a long absence a job may be repeated as it is now; changes
        in between may be merged into one. Raises NotFound, and TimeoutError after `timeout_s`.
        """
        name = self.name(job) if job else ""
        parent = name.partition("/jobs/")[0] or self.parent
        request = pb.WatchTrainingJobsRequest(parent=parent, name=name)
        event: pb.WatchTrainingJobsResponse
        for event in self.connection.watch(self._rpc.WatchTrainingJobs, request, deadline_after(timeout_s)):
            if not event.HasField("training_job"):
                continue
            yield event.training_job
            if name and has_ended(event.training_job):
                return

    def wait(self, job: str, *, timeout_s: float | None = None) -> pb.TrainingJob:
        """The job once it has ended, however it did. Raises NotFound, and TimeoutError after `timeout_s`."""
        return deque(self.watch(job, timeout_s=timeout_s), maxlen=1).pop()

    def logs(self, job: str, *, follow: bool = False, attempt: int = 0) -> Iterator[pb.StreamTrainingJobLogsResponse]:
        """A job's log in pieces of whole lines; `follow` goes on until the job ends. Raises NotFound.

        A log only grows, so when the server comes back what was already read is passed over.
        """
        request = pb.StreamTrainingJobLogsRequest(name=self.name(job), follow=follow, attempt=attempt)
        tries, reader = Tries(self.connection.patience), _LogReader()
        while True:
            try:
                for piece in self.connection.stream(self._rpc.StreamTrainingJobLogs, request):
                    tries.succeeded()
                    yield from reader.fresh(piece)
                return
            except Unavailable as error:
                tries.pause_after(error)
                reader.start_again()


class _LogReader:
    """Passes over what was read before the stream broke: a log only grows."""

    def __init__(self) -> None:
        self._read: Counter[int] = Counter()  # characters by attempt
        self._position: Counter[int] = Counter()

    def start_again(self) -> None:
        self._position.clear()

    def fresh(self, piece: pb.StreamTrainingJobLogsResponse) -> Iterator[pb.StreamTrainingJobLogsResponse]:
        text = piece.text[max(0, self._read[piece.attempt] - self._position[piece.attempt]) :]
        self._position[piece.attempt] += len(piece.text)
        self._read[piece.attempt] += len(text)
        if text:
            yield pb.StreamTrainingJobLogsResponse(attempt=piece.attempt, text=text)
