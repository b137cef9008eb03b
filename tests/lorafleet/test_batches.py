"""The client's batches against a real gRPC server on loopback whose answers are given in advance."""

from typing import Any

import pytest
from google.rpc import code_pb2

from lorafleet import errors
from lorafleet.client import AsyncClient
from lorafleet.v1 import batch_service_pb2 as pb
from tests.lorafleet.fake_server import AWAY, FakeServer, Refusal
from tests.lorafleet.jobs import a_batch, a_job, batch_event

DEFAULTS: dict[str, Any] = {"base_model": {"uri": "file:///base"}, "adapter": {"rank": 4}}
ITEMS: list[dict[str, Any]] = [
    {"job_id": "fox", "dataset": {"uri": "s3://pictures/fox"}},
    {"dataset": {"uri": "s3://pictures/cat"}, "labels": {"customer": "7"}, "training": {"seed": 2**62}},
]


async def test_create_batch_sends_the_header_first_and_only_what_was_set(server: FakeServer, client: AsyncClient) -> None:
    server.answers("create_batch", a_batch())
    assert (await client.create_batch(DEFAULTS, ITEMS, batch_id="tonight", validate_only=True)).name == "tenants/acme/batches/tonight"
    ((header, items),) = server.requests
    assert (header.header.parent, header.header.batch_id, header.header.validate_only) == ("tenants/acme", "tonight", True)
    assert header.header.defaults.adapter.rank == 4
    assert [item.job_id for item in items.items.items] == ["fox", ""]
    assert not items.items.items[0].spec.HasField("adapter")  # the server lays it over the defaults
    assert items.items.items[1].spec.training.seed == 2**62


async def test_create_batch_that_is_tried_again_sends_all_of_it_under_the_same_request_id(server: FakeServer, client: AsyncClient) -> None:
    server.answers("create_batch", AWAY, AWAY, a_batch())
    await client.create_batch(DEFAULTS, ITEMS)
    first, *others = server.requests
    assert len(others) == 2
    assert all(request == first for request in others)
    assert first[0].header.request_id


async def test_items_travel_in_messages_below_a_megabyte_in_order(server: FakeServer, client: AsyncClient) -> None:
    server.answers("create_batch", a_batch())
    items = [{"dataset": {"uri": f"file:///{index}"}, "validation": {"prompts": ["x" * 10_000]}} for index in range(400)]
    await client.create_batch(DEFAULTS, items)
    ((_, *chunks),) = server.requests
    assert len(chunks) > 3
    assert max(chunk.ByteSize() for chunk in chunks) < 2**20
    assert [item.spec.dataset.uri for chunk in chunks for item in chunk.items.items] == [f"file:///{index}" for index in range(400)]


async def test_refused_batch_raises_every_violation_of_every_item(server: FakeServer, client: AsyncClient) -> None:
    broken = {"items[0].dataset.uri": "the folder is empty", "items[1].adapter.rank": "0 is not positive"}
    server.answers("create_batch", Refusal(code_pb2.INVALID_ARGUMENT, "2", "INVALID_SPEC", broken))
    with pytest.raises(errors.InvalidSpec) as caught:
        await client.create_batch(DEFAULTS, ITEMS)
    assert {violation.field: violation.message for violation in caught.value.violations} == broken


async def test_field_that_the_wire_does_not_know_is_refused_by_its_item(server: FakeServer, client: AsyncClient) -> None:
    with pytest.raises(errors.InvalidSpec, match=r"items\[1\].*rnk"):
        await client.create_batch(DEFAULTS, [ITEMS[0], {"adapter": {"rnk": 4}}])
    assert server.requests == []


async def test_plan_batch_stores_nothing_and_gives_the_packs(server: FakeServer, client: AsyncClient) -> None:
    server.answers("plan_batch", pb.PlanBatchResponse(packs=[pb.PlannedPack(items=[0, 1])]))
    assert list((await client.plan_batch(DEFAULTS, ITEMS)).packs[0].items) == [0, 1]
    ((header, _),) = server.requests
    assert header.header.parent == "tenants/acme"


async def test_batch_is_named_by_its_id_or_in_full(server: FakeServer, client: AsyncClient) -> None:
    server.answers("get_batch", a_batch(RUNNING=2))
    server.answers("cancel_batch", a_batch(STOPPING=2))
    server.answers("retry_failed", a_batch(QUEUED=2))
    await client.get_batch("tonight")
    await client.cancel_batch("tenants/blue/batches/b")
    await client.retry_failed("tonight")
    assert [request.name for request in server.requests] == [
        "tenants/acme/batches/tonight",
        "tenants/blue/batches/b",
        "tenants/acme/batches/tonight",
    ]


async def test_jobs_and_batches_are_read_page_by_page(server: FakeServer, client: AsyncClient) -> None:
    server.answers(
        "list_batch_jobs",
        pb.ListBatchJobsResponse(training_jobs=[a_job("a"), a_job("b")], next_page_token="2"),
        pb.ListBatchJobsResponse(training_jobs=[a_job("c")]),
    )
    server.answers("list_batches", pb.ListBatchesResponse(batches=[a_batch("x")], next_page_token="2"), pb.ListBatchesResponse())
    assert [job.name[-1] async for job in client.list_batch_jobs("tonight", filter="state = RUNNING")] == ["a", "b", "c"]
    assert [(request.parent, request.page_token, request.filter) for request in server.requests] == [
        ("tenants/acme/batches/tonight", "", "state = RUNNING"),
        ("tenants/acme/batches/tonight", "2", "state = RUNNING"),
    ]
    assert [batch.name[-1] async for batch in client.list_batches()] == ["x"]


async def test_watch_of_a_batch_goes_on_after_a_restart_and_ends_with_the_last_job(server: FakeServer, client: AsyncClient) -> None:
    server.answers("get_batch", a_batch(num_jobs=2))
    server.answers(
        "watch_batch",
        [batch_event("1", a_job("a"), snapshot=True), batch_event("2"), AWAY],
        [batch_event("3", a_job("a", "SUCCEEDED")), AWAY],
        AWAY,
        [batch_event("4", a_job("b", "FAILED")), batch_event("5", a_job("a", "SUCCEEDED"))],
    )
    assert [job.name[-1] async for job in client.watch_batch("tonight")] == ["a", "a", "b"]
    assert [request.resume_token for request in server.requests[1:]] == ["", "2", "3", "3"]


async def test_job_that_is_retried_keeps_the_watch_going(server: FakeServer, client: AsyncClient) -> None:
    server.answers("get_batch", a_batch(num_jobs=2))
    events = [("a", "FAILED"), ("a", "QUEUED"), ("b", "SUCCEEDED"), ("a", "SUCCEEDED")]
    server.answers("watch_batch", [batch_event(str(number), a_job(*event)) for number, event in enumerate(events)])
    assert len([change async for change in client.watch_batch("tonight")]) == 4


async def test_new_snapshot_forgets_what_had_ended_before_the_absence(server: FakeServer, client: AsyncClient) -> None:
    server.answers("get_batch", a_batch(num_jobs=2))
    server.answers(
        "watch_batch",
        [batch_event("1", a_job("a", "FAILED")), AWAY],
        Refusal(code_pb2.OUT_OF_RANGE, "too old", "RESUME_TOKEN_EXPIRED"),
        [
            batch_event("7", a_job("b", "SUCCEEDED"), snapshot=True),
            batch_event("8", a_job("a", "RUNNING"), snapshot=True),  # retried meanwhile
            batch_event("9", a_job("a", "SUCCEEDED")),
        ],
    )
    assert [job.name[-1] async for job in client.watch_batch("tonight")] == ["a", "b", "a", "a"]


async def test_watch_of_an_unknown_batch_is_an_error(server: FakeServer, client: AsyncClient) -> None:
    server.answers("get_batch", Refusal(code_pb2.NOT_FOUND, "no such batch", "BATCH_NOT_FOUND"))
    with pytest.raises(errors.NotFound):
        [change async for change in client.watch_batch("tonight")]


async def test_watch_of_a_batch_that_does_not_end_in_time_is_a_timeout(server: FakeServer, client: AsyncClient) -> None:
    server.answers("get_batch", a_batch(num_jobs=2))
    server.answers("watch_batch", [batch_event("1", a_job("a"))])
    with pytest.raises(TimeoutError):
        [change async for change in client.watch_batch("tonight", timeout_s=0)]
