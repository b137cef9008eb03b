"""The client against a real gRPC server on loopback whose answers are given in advance."""

import uuid

import pytest
from google.rpc import code_pb2

from lorafleet import errors, spec_proto
from lorafleet.client import AsyncClient
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.both_clients import opened
from tests.lorafleet.conftest import FakeTime
from tests.lorafleet.fake_server import AWAY, FakeServer, Refusal
from tests.lorafleet.jobs import a_job, event
from tests.lorafleet.specs import smallest


async def test_create_sends_the_spec_under_the_tenant(server: FakeServer, client: AsyncClient) -> None:
    server.answers("create", a_job())
    assert (await client.create(smallest(), job_id="fox")).name == "tenants/acme/jobs/fox"
    (request,) = server.requests
    assert (request.parent, request.training_job_id) == ("tenants/acme", "fox")
    assert spec_proto.from_proto(request.training_job.spec) == smallest()


async def test_create_that_is_tried_again_carries_the_same_request_id(server: FakeServer, client: AsyncClient) -> None:
    server.answers("create", AWAY, AWAY, a_job())
    await client.create(smallest())
    ids = {request.request_id for request in server.requests}
    assert len(server.requests) == 3
    assert len(ids) == 1
    assert uuid.UUID(ids.pop())


async def test_two_creates_are_two_requests(server: FakeServer, client: AsyncClient) -> None:
    server.answers("create", a_job())
    await client.create(smallest())
    await client.create(smallest())
    assert len({request.request_id for request in server.requests}) == 2


async def test_server_that_stays_away_is_an_error_that_names_it(server: FakeServer, client: AsyncClient, time: FakeTime) -> None:
    server.answers("get", AWAY)
    with pytest.raises(errors.Unavailable, match=f"{server.address} does not answer; is lorafleet serve running there"):
        await client.get("fox")
    assert sum(time.slept_s) == pytest.approx(30)


async def test_nothing_listening_is_an_error_that_names_the_address(client_kind: str, time: FakeTime) -> None:
    async with opened(client_kind, "127.0.0.1:1", patience=time.patience(total_s=0)) as client:
        with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1 "):
            await client.get("fox")


@pytest.mark.parametrize(
    ("refusal", "kind", "reason"),
    [
        (Refusal(code_pb2.NOT_FOUND, "no", "JOB_NOT_FOUND"), errors.NotFound, "JOB_NOT_FOUND"),
        (Refusal(code_pb2.NOT_FOUND, "no"), errors.NotFound, "NOT_FOUND"),
        (Refusal(code_pb2.ALREADY_EXISTS, "no", "REQUEST_ID_REUSED"), errors.AlreadyExists, "REQUEST_ID_REUSED"),
        (Refusal(code_pb2.FAILED_PRECONDITION, "no", "JOB_ENDED"), errors.FailedPrecondition, "JOB_ENDED"),
        (Refusal(code_pb2.OUT_OF_RANGE, "no", "PAGE_TOKEN_EXPIRED"), errors.TokenExpired, "PAGE_TOKEN_EXPIRED"),
        (Refusal(code_pb2.INVALID_ARGUMENT, "no", "BAD_PAGE_TOKEN"), errors.InvalidInput, "BAD_PAGE_TOKEN"),
        (Refusal(code_pb2.INTERNAL, "oops"), errors.LorafleetError, "INTERNAL"),
        (Refusal(code_pb2.UNIMPLEMENTED, "what?"), errors.LorafleetError, "UNIMPLEMENTED"),
    ],
)
async def test_refusal_becomes_its_exception_with_the_servers_reason(
    server: FakeServer, client: AsyncClient, refusal: Refusal, kind: type[errors.LorafleetError], reason: str
) -> None:
    server.answers("get", refusal)
    with pytest.raises(errors.LorafleetError) as caught:
        await client.get("fox")
    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert len(server.requests) == 1  # a refusal is final


async def test_refused_spec_raises_every_violation(server: FakeServer, client: AsyncClient) -> None:
    broken = {"adapter.rank": "0 is not positive", "dataset.uri": "bucket is missing"}
    server.answers("create", Refusal(code_pb2.INVALID_ARGUMENT, "2 problems", "INVALID_SPEC", broken))
    with pytest.raises(errors.InvalidSpec) as caught:
        await client.create(smallest())
    assert {violation.field: violation.message for violation in caught.value.violations} == broken
    assert "adapter.rank: 0 is not positive" in str(caught.value)


async def test_list_reads_every_page_and_asks_for_the_next_only_when_needed(server: FakeServer, client: AsyncClient) -> None:
    server.answers(
        "list",
        pb.ListTrainingJobsResponse(training_jobs=[a_job("a"), a_job("b")], next_page_token="2"),
        pb.ListTrainingJobsResponse(training_jobs=[a_job("c")]),
    )
    found = client.list(filter="state = RUNNING")
    assert (await anext(found)).name.endswith("/a")
    assert len(server.requests) == 1
    assert [job.name[-1] async for job in found] == ["b", "c"]
    assert [(request.page_token, request.filter) for request in server.requests] == [("", "state = RUNNING"), ("2", "state = RUNNING")]


async def test_watch_goes_on_after_a_restart_where_it_was(server: FakeServer, client: AsyncClient) -> None:
    server.answers(
        "watch",
        [event("1", a_job(step=1), snapshot=True), event("2"), AWAY],
        [event("3", a_job(step=2)), AWAY],
        AWAY,
        [event("4", a_job(state="SUCCEEDED", step=3))],
    )
    assert [job.progress.step async for job in client.watch("fox")] == [1, 2, 3]
    assert [request.resume_token for request in server.requests] == ["", "2", "3", "3"]
    assert {request.name for request in server.requests} == {"tenants/acme/jobs/fox"}


async def test_watch_whose_token_has_expired_begins_with_a_snapshot(server: FakeServer, client: AsyncClient) -> None:
    server.answers(
        "watch",
        [event("1", a_job(step=1)), AWAY],
        Refusal(code_pb2.OUT_OF_RANGE, "too old", "RESUME_TOKEN_EXPIRED"),
        [event("9", a_job(state="CANCELLED", step=5), snapshot=True)],
    )
    assert [job.progress.step async for job in client.watch("fox")] == [1, 5]
    assert [request.resume_token for request in server.requests] == ["", "1", ""]


async def test_watch_that_the_server_ends_early_goes_on(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", [event("1", a_job())], [event("2", a_job(state="FAILED"))])
    assert [job.state async for job in client.watch("fox")] == [pb.JOB_STATE_RUNNING, pb.JOB_STATE_FAILED]


async def test_watch_of_an_unknown_job_is_an_error(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", Refusal(code_pb2.NOT_FOUND, "no such job"))
    with pytest.raises(errors.NotFound):
        [change async for change in client.watch("fox")]


async def test_watch_of_a_tenant_goes_on_after_a_job_has_ended(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", [event("1", a_job("a", "SUCCEEDED")), event("2", a_job("b"))])
    watch = client.watch()
    assert [(await anext(watch)).name[-1], (await anext(watch)).name[-1]] == ["a", "b"]
    assert server.requests[0].name == ""


async def test_watch_of_another_tenants_job_asks_under_that_tenant(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", [event("1", a_job(state="SUCCEEDED"))])
    [change async for change in client.watch("tenants/blue/jobs/fox")]
    assert server.requests[0].parent == "tenants/blue"


async def test_wait_gives_the_job_as_it_ended(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", [event("1", a_job()), event("2", a_job(state="FAILED", reason="NAN_LOSS"))])
    assert (await client.wait("fox")).reason == "NAN_LOSS"


async def test_wait_raises_when_the_job_has_not_ended_in_time(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", [event("1", a_job())])
    with pytest.raises(TimeoutError):
        await client.wait("fox", timeout_s=0)


async def test_logs_that_break_off_go_on_without_a_line_twice_or_missing(server: FakeServer, client: AsyncClient) -> None:
    def piece(text: str, attempt: int = 1) -> pb.StreamTrainingJobLogsResponse:
        return pb.StreamTrainingJobLogsResponse(attempt=attempt, text=text)

    server.answers("logs", [piece("a\nb\n"), piece("c\n"), AWAY], [piece("a\n"), piece("b\nc\nd\n"), piece("e\n", attempt=2)])
    assert [piece.text async for piece in client.logs("fox", follow=True)] == ["a\nb\n", "c\n", "d\n", "e\n"]


async def test_cancel_names_the_job(server: FakeServer, client: AsyncClient) -> None:
    server.answers("cancel", a_job(state="STOPPING"))
    assert (await client.cancel("fox")).state == pb.JOB_STATE_STOPPING
    assert server.requests[0].name == "tenants/acme/jobs/fox"
