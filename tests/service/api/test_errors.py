"""Bad input has a code, a reason and a hint; nothing inside leaks out."""

from urllib.parse import quote

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from lorafleet.errors import (
    Aborted,
    InvalidInput,
    InvalidSpec,
    LorafleetError,
    QuotaExceeded,
    QuotaViolation,
    RateLimited,
    ResourceExhausted,
    Unavailable,
    Violation,
)
from lorafleet.transport.rpc_errors import from_rpc_error
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from service.api.errors import to_status
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.world import succeeded

JOB = "tenants/acme/jobs/none"


async def all_of(stream) -> list:
    return [event async for event in stream]


@pytest.mark.parametrize("parent", ["", "acme", "tenants/", "tenants/ACME", "tenants/a/b", "tenants/../x", "tenants/" + "a" * 41])
async def test_a_bad_parent(api: Api, parent: str):
    for call in (
        api.jobs.CreateTrainingJob(api.request(parent=parent)),
        api.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest(parent=parent)),
        all_of(api.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent=parent))),
    ):
        answer = await refusal(call)
        assert (answer.code, list(answer.fields)) == ("INVALID_ARGUMENT", ["parent"])


@pytest.mark.parametrize("name", ["", "jobs/x", "tenants/acme/jobs/", "tenants/acme/jobs/A", f"{JOB}/more"])
async def test_a_bad_name(api: Api, name: str):
    for call in (
        api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=name)),
        api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name)),
        all_of(api.jobs.StreamTrainingJobLogs(pb.StreamTrainingJobLogsRequest(name=name))),
    ):
        answer = await refusal(call)
        assert (answer.code, list(answer.fields)) == ("INVALID_ARGUMENT", ["name"])


@pytest.mark.parametrize("fields", [{"training_job_id": "Mine"}, {"training_job_id": "a" * 41}, {"request_id": "no-uuid"}])
async def test_a_bad_id(api: Api, fields: dict[str, str]):
    answer = await refusal(api.jobs.CreateTrainingJob(api.request(**fields)))
    assert (answer.code, list(answer.fields)) == ("INVALID_ARGUMENT", list(fields))


async def test_an_unknown_job(api: Api):
    for call in (
        api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=JOB)),
        api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name=JOB)),
        all_of(api.jobs.StreamTrainingJobLogs(pb.StreamTrainingJobLogsRequest(name=JOB))),
        all_of(api.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/acme", name=JOB))),
    ):
        answer = await refusal(call)
        assert (answer.code, answer.reason) == ("NOT_FOUND", "JOB_NOT_FOUND")


async def test_another_tenants_job_is_not_there(api: Api):
    job = await api.jobs.CreateTrainingJob(api.request(training_job_id="mine"))
    answer = await refusal(api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=job.name.replace("acme", "other"))))
    assert answer.code == "NOT_FOUND"


async def test_cancel_of_a_finished_job(api: Api):
    name, run = await api.world.running()
    await api.world.report(run, succeeded())
    answer = await refusal(api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name=str(name))))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "JOB_FINISHED")


async def test_cancel_of_a_cancelled_job_answers_the_job(api: Api):
    job = await api.jobs.CreateTrainingJob(api.request())
    for _ in range(2):
        cancelled = await api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name=job.name))
        assert cancelled.state == pb.JOB_STATE_CANCELLED


async def test_reports_need_the_token_of_their_run(api: Api):
    _, run = await api.world.started()
    request = rpb.ReportRequest(run=run, source="driver")
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", f"Bearer {api.world.backend.tokens[run]}x"),)):
        answer = await refusal(api.reports.Report(request, metadata=metadata))
        assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "BAD_RUN_TOKEN")
    good = (("authorization", f"Bearer {api.world.backend.tokens[run]}"),)
    assert (await api.reports.Report(request, metadata=good)).next_report_s == 2


async def test_a_stale_attempt_is_told_so(api: Api):
    _, run = await api.world.running()
    api.world.backend.end(run)
    api.world.clock.advance(5)
    await api.world.settle()
    metadata = (("authorization", f"Bearer {api.world.backend.tokens[run]}"),)
    answer = await refusal(api.reports.Report(rpb.ReportRequest(run=run, source="driver"), metadata=metadata))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "STALE_ATTEMPT")


async def test_a_bug_leaks_nothing_but_a_number(api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    async def put(uri: str, data: bytes) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.world.tools.store, "put", put)
    answer = await refusal(api.jobs.CreateTrainingJob(api.request()))
    assert (answer.code, answer.reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in answer.message
    number = answer.message.split()[2].rstrip(";")
    assert number in caplog.text
    assert "secret detail" in caplog.text


async def test_health_tells_of_every_service_and_reflection_of_the_users(api: Api):
    health = health_pb2_grpc.HealthStub(api.channel)
    for service in ("", "lorafleet.v1.TrainingService", "lorafleet.v1.BatchService", "lorafleet.v1.ReportService"):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await health.Check(health_pb2.HealthCheckRequest(service="unknown"))
    reflection = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    [answer] = [answer async for answer in reflection.ServerReflectionInfo(iter([request]))]
    assert {one.name for one in answer.list_services_response.service} == {
        "lorafleet.v1.TrainingService",
        "lorafleet.v1.BatchService",
        "lorafleet.v1.AdapterService",
        "lorafleet.v1.WebhookService",
        "lorafleet.v1.GenerationService",
        "lorafleet.v1.AccessService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_reflection_describes_what_users_call_and_nothing_of_what_runs_say(api: Api):
    reflection = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="lorafleet.v1.TrainingService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="lorafleet.v1.ReportService"),
        reflection_pb2.ServerReflectionRequest(file_by_filename="lorafleet/v1/report_service.proto"),
    ]
    public, *inner = [answer async for answer in reflection.ServerReflectionInfo(iter(asked))]
    assert public.file_descriptor_response.file_descriptor_proto
    assert [answer.WhichOneof("message_response") for answer in inner] == ["error_response"] * 2


class Failed(grpc.RpcError):
    """A call that ended with the status of `error`, as a client sees it."""

    def __init__(self, error: LorafleetError) -> None:
        self.status = rpc_status.to_status(to_status(error))

    def code(self) -> grpc.StatusCode:
        return self.status.code

    def details(self) -> str:
        return self.status.details

    def trailing_metadata(self) -> tuple:
        return self.status.trailing_metadata


QUOTAS = [
    QuotaViolation(subject="tenants/acme", description="4 GPUs are allowed, 3 are in use, 2 were asked for"),
    QuotaViolation(subject="tenants/acme", description="10 jobs may be queued, and 10 are"),
]


def test_a_quota_reaches_the_client_as_it_was_raised():
    met = from_rpc_error(Failed(raised := QuotaExceeded("the quota is used up", violations=QUOTAS)))
    assert isinstance(met, QuotaExceeded)
    assert (met.message, list(met.violations), met.reason, met.retryable) == (raised.message, QUOTAS, "QUOTA_EXCEEDED", False)


@pytest.mark.parametrize(
    "raised",
    [
        RateLimited("12 calls a second are taken", retry_delay_s=0.25),
        ResourceExhausted("too many watchers", reason="TOO_MANY_WATCHERS", retryable=True, retry_delay_s=7),
        Unavailable("restarting"),
        Unavailable("slow", reason="SLOW_READER", retry_delay_s=1.5),
        Aborted("changed", reason="ETAG_MISMATCH"),
        ResourceExhausted("too large"),
    ],
)
def test_when_to_try_again_reaches_the_client(raised: LorafleetError):
    met = from_rpc_error(Failed(raised))
    assert type(met) is type(raised)
    told = (met.message, met.reason, met.retryable, met.retry_delay_s)
    assert told == (raised.message, raised.reason, raised.retryable, raised.retry_delay_s)


def listed(error: LorafleetError) -> list[str]:
    bad = error_details_pb2.BadRequest()
    assert to_status(error).details[1].Unpack(bad)
    return [violation.description for violation in bad.field_violations]


def test_a_hundred_problems_are_listed_and_the_others_counted():
    told = listed(InvalidSpec([Violation(field="a", message=f"{place}") for place in range(1500)]))
    assert told == [*(f"{place}" for place in range(100)), "and 1,400 more problems; fix these first"]


@pytest.mark.parametrize("text", ["a", "é", "\N{SNOWMAN}", "\U0001f98a", "%", "\n", "two words\n"])
@pytest.mark.parametrize("length", [1, 60, 500, 5_000])
def test_no_error_outgrows_what_a_caller_takes(text: str, length: int):
    """gRPC's limit for trailers, 8 KiB, holds the message percent-encoded and the status with the message again."""
    long = text * length
    for error in (
        LorafleetError(long),
        InvalidInput(long),
        InvalidInput(long, violations=[Violation(field=long, message=long)]),
        InvalidSpec([Violation(field=long, message=long)] * 200),
        InvalidSpec([Violation(field="items[1].dataset.uri", message=long)] * 30),
        QuotaExceeded(long, violations=[QuotaViolation(subject=long, description=long)] * 30),
    ):
        status = to_status(error)
        assert len(quote(status.message, safe=" ")) + status.ByteSize() < 8192 - 300, "what gRPC adds itself"
