"""The client: create, watch and end training jobs from Python. Knows gRPC and the protos, and nothing of how jobs run.

    with Client("127.0.0.1:7600") as client:
        job = client.create(spec)
        for job in client.watch(job.name):
            print(job.progress.step, job.progress.loss)

Calls ride out a server that is away for a while, so all of them are safe to repeat. Errors are those of lorafleet.errors.
"""

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message

from lorafleet import DEFAULT_SERVER, DEFAULT_TENANT, spec_proto
from lorafleet.errors import LorafleetError, TokenExpired, Unavailable
from lorafleet.retry import Patience, Tries
from lorafleet.rpc_errors import from_rpc_error
from lorafleet.spec import Spec
from lorafleet.states import has_ended
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1.training_service_pb2_grpc import TrainingServiceStub

_CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 60_000),  # a load balancer drops a silent watch without telling either side
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 200),  # gRPC's own waits would outlast Patience
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

Response = TypeVar("Response")


class Client:
    """One connection to a control plane, acting for one tenant. Safe to share between threads."""

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        tenant: str = DEFAULT_TENANT,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        call_timeout_s: float = 20.0,
    ) -> None:
        self.tenant = tenant
        self._server = server
        self._patience = patience
        self._call_timeout_s = call_timeout_s
        self._channel = grpc.insecure_channel(server, options=_CHANNEL_OPTIONS)
        self._rpc = cast(Any, TrainingServiceStub(self._channel))  # generated, untyped; requests and answers are typed here

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    @property
    def parent(self) -> str:
        return f"tenants/{self.tenant}"

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
        return self._call(self._rpc.CreateTrainingJob, request)

    def get(self, job: str) -> pb.TrainingJob:
        """The job as it is now. Raises NotFound."""
        return self._call(self._rpc.GetTrainingJob, pb.GetTrainingJobRequest(name=self.name(job)))

    def list(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> Iterator[pb.TrainingJob]:
        """Every job that matches, page by page; `filter` as in `state = RUNNING AND labels.team = "red"`."""
        request = pb.ListTrainingJobsRequest(parent=self.parent, filter=filter, order_by=order_by, page_size=page_size)
        while True:
            page: pb.ListTrainingJobsResponse = self._call(self._rpc.ListTrainingJobs, request)
            yield from page.training_jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def cancel(self, job: str) -> pb.TrainingJob:
        """Ask a job to stop; it saves a checkpoint first. Raises NotFound, FailedPrecondition."""
        return self._call(self._rpc.CancelTrainingJob, pb.CancelTrainingJobRequest(name=self.name(job)))

    def watch(self, job: str = "", *, timeout_s: float | None = None) -> Iterator[pb.TrainingJob]:
        """A job as it is, then after every change until it has ended; without `job`, all of the tenant's, for ever.

        Goes on where it was when the server comes back. After a long absence a job may be repeated as it is now; changes
        in between may be merged into one. Raises NotFound, and TimeoutError after `timeout_s`.
        """
        name = self.name(job) if job else ""
        parent = name.partition("/jobs/")[0] or self.parent
        for found in self._watch(pb.WatchTrainingJobsRequest(parent=parent, name=name), _deadline(timeout_s)):
            yield found
            if name and has_ended(found):
                return

    def wait(self, job: str, *, timeout_s: float | None = None) -> pb.TrainingJob:
        """The job once it has ended, however it did. Raises NotFound, and TimeoutError after `timeout_s`."""
        return deque(self.watch(job, timeout_s=timeout_s), maxlen=1).pop()

    def logs(self, job: str, *, follow: bool = False, attempt: int = 0) -> Iterator[pb.StreamTrainingJobLogsResponse]:
        """A job's log in pieces of whole lines; `follow` goes on until the job ends. Raises NotFound.

        A log only grows, so when the server comes back what was already read is passed over.
        """
        request = pb.StreamTrainingJobLogsRequest(name=self.name(job), follow=follow, attempt=attempt)
        tries, reader = Tries(self._patience), _LogReader()
        while True:
            try:
                for piece in self._stream(self._rpc.StreamTrainingJobLogs, request):
                    tries.succeeded()
                    yield from reader.fresh(piece)
                return
            except Unavailable as error:
                tries.pause_after(error)
                reader.start_again()

    def _watch(self, request: pb.WatchTrainingJobsRequest, deadline: float | None) -> Iterator[pb.TrainingJob]:
        tries = Tries(self._patience)
        while True:
            try:
                event: pb.WatchTrainingJobsResponse
                for event in self._stream(self._rpc.WatchTrainingJobs, request, deadline):
                    tries.succeeded()
                    request.resume_token = event.resume_token
                    if event.HasField("training_job"):
                        yield event.training_job
                raise Unavailable(f"{self._server} ended the watch")
            except Unavailable as error:
                _raise_if_past(deadline)
                tries.pause_after(error)
            except TokenExpired:
                if not request.resume_token:
                    raise
                request.resume_token = ""  # too long away to go on: begin with a snapshot

    def _call(self, method: Callable[..., Response], request: Message) -> Response:
        tries = Tries(self._patience)
        while True:
            try:
                return method(request, timeout=self._call_timeout_s)
            except grpc.RpcError as error:
                tries.pause_after(self._translated(error))

    def _stream(self, method: Callable[..., Any], request: Message, deadline: float | None = None) -> Iterator[Any]:
        answers = method(request, timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        try:
            yield from answers
        except grpc.RpcError as error:
            raise self._translated(error) from None
        finally:
            answers.cancel()  # the caller may have stopped reading

    def _translated(self, error: grpc.RpcError) -> LorafleetError:
        known = from_rpc_error(error)
        if type(known) is Unavailable and known.reason == Unavailable.reason:  # gRPC's own, which names no server
            return Unavailable(f"{self._server} does not answer ({known.message})")
        return known


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


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _raise_if_past(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeoutError("the job has not ended in time")
