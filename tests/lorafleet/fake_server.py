"""A control plane made of answers given in advance, on real gRPC over loopback."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1.batch_service_pb2_grpc import BatchServiceServicer, add_BatchServiceServicer_to_server
from lorafleet.v1.training_service_pb2_grpc import TrainingServiceServicer, add_TrainingServiceServicer_to_server

Answer = Any  # a message, a list of messages to stream, or a Refusal; in a list, a Refusal ends the stream


class Refusal(Exception):
    """A google.rpc.Status with ErrorInfo and BadRequest, as the control plane sends it."""

    def __init__(
        self, code: int, message: str, reason: str = "", violations: dict[str, str] | None = None, *, retry_delay_s: int | None = None
    ) -> None:
        details = []
        if reason:
            details.append(_packed(error_details_pb2.ErrorInfo(reason=reason, domain="lorafleet")))
        if violations:
            broken = [error_details_pb2.BadRequest.FieldViolation(field=path, description=text) for path, text in violations.items()]
            details.append(_packed(error_details_pb2.BadRequest(field_violations=broken)))
        if retry_delay_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromSeconds(retry_delay_s)
            details.append(_packed(retry))
        self.status = rpc_status.to_status(status_pb2.Status(code=code, message=message, details=details))


SILENCE = object()  # in a list: nothing more comes, and the stream stays open
AWAY = Refusal(code_pb2.UNAVAILABLE, "restarting")


class FakeServer(TrainingServiceServicer, BatchServiceServicer):
    """Answers each method's calls from its script, in order; the last answer is repeated. Remembers every request."""

    def __init__(self) -> None:
        self.scripts: dict[str, list[Answer | Callable[[Any], Answer]]] = {}
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.asked = threading.Event()
        self.ended = threading.Event()  # a stream has ended, in SILENCE by its caller
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_TrainingServiceServicer_to_server(self, self._server)
        add_BatchServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def answers(self, method: str, *script: Answer | Callable[[Any], Answer]) -> None:
        self.scripts[method] = list(script)

    def _next(self, method: str, request: Any) -> Answer:
        self.requests.append(_copied(request))
        self.asked.set()
        script = self.scripts[method]
        answer = script.pop(0) if len(script) > 1 else script[0]
        return answer(request) if callable(answer) else answer

    def _one(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self._next(method, request)
        if isinstance(answer, Refusal):
            context.abort_with_status(answer.status)
        return answer

    def _many(self, method: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        answer = self._next(method, request)
        is_open = context.add_callback(self.ended.set)  # now: gRPC asks no more of us once the caller has left
        for item in answer if isinstance(answer, list) else [answer]:
            if isinstance(item, Refusal):
                context.abort_with_status(item.status)
            if item is SILENCE:
                if not is_open:
                    self.ended.set()
                self.ended.wait(60)
                return
            yield item

    def CreateTrainingJob(self, request: pb.CreateTrainingJobRequest, context: grpc.ServicerContext) -> pb.TrainingJob:
        return self._one("create", request, context)

    def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: grpc.ServicerContext) -> pb.TrainingJob:
        return self._one("get", request, context)

    def ListTrainingJobs(self, request: pb.ListTrainingJobsRequest, context: grpc.ServicerContext) -> pb.ListTrainingJobsResponse:
        return self._one("list", request, context)

    def CancelTrainingJob(self, request: pb.CancelTrainingJobRequest, context: grpc.ServicerContext) -> pb.TrainingJob:
        return self._one("cancel", request, context)

    def WatchTrainingJobs(self, request: pb.WatchTrainingJobsRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        return self._many("watch", request, context)

    def StreamTrainingJobLogs(self, request: pb.StreamTrainingJobLogsRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        return self._many("logs", request, context)

    def CreateBatch(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> batch_pb.Batch:
        return self._one("create_batch", list(request_iterator), context)

    def PlanBatch(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> batch_pb.PlanBatchResponse:
        return self._one("plan_batch", list(request_iterator), context)

    def GetBatch(self, request: batch_pb.GetBatchRequest, context: grpc.ServicerContext) -> batch_pb.Batch:
        return self._one("get_batch", request, context)

    def ListBatches(self, request: batch_pb.ListBatchesRequest, context: grpc.ServicerContext) -> batch_pb.ListBatchesResponse:
        return self._one("list_batches", request, context)

    def ListBatchJobs(self, request: batch_pb.ListBatchJobsRequest, context: grpc.ServicerContext) -> batch_pb.ListBatchJobsResponse:
        return self._one("list_batch_jobs", request, context)

    def WatchBatch(self, request: batch_pb.WatchBatchRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        return self._many("watch_batch", request, context)

    def CancelBatch(self, request: batch_pb.CancelBatchRequest, context: grpc.ServicerContext) -> batch_pb.Batch:
        return self._one("cancel_batch", request, context)

    def RetryFailed(self, request: batch_pb.RetryFailedRequest, context: grpc.ServicerContext) -> batch_pb.Batch:
        return self._one("retry_failed", request, context)


def _copied(request: Any) -> Any:
    """A request as it came; a list of them when the call sends many."""
    if isinstance(request, list):
        return [_copied(one) for one in request]
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


def _packed(message: Any) -> Packed:
    packed = Packed()
    packed.Pack(message)
    return packed
