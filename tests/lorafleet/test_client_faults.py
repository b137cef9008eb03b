"""What both clients do when a call is refused, put off, cut off, cancelled or out of time."""

import asyncio
from contextlib import aclosing

import pytest
from google.rpc import code_pb2

from lorafleet import errors
from lorafleet.client import AsyncClient, Client, Credentials
from tests.lorafleet.both_clients import opened
from tests.lorafleet.conftest import FakeTime
from tests.lorafleet.fake_server import AWAY, SILENCE, FakeServer, Refusal
from tests.lorafleet.jobs import a_job, event
from tests.lorafleet.specs import smallest


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (code_pb2.UNAUTHENTICATED, errors.Unauthenticated),
        (code_pb2.ABORTED, errors.Aborted),
        (code_pb2.RESOURCE_EXHAUSTED, errors.ResourceExhausted),
    ],
)
@pytest.mark.parametrize("method", ["get", "watch", "logs"])
async def test_refusal_that_waiting_cannot_mend_is_told_at_once(
    server: FakeServer, client: AsyncClient, time: FakeTime, code: int, error: type[errors.LorafleetError], method: str
) -> None:
    server.answers(method, Refusal(code, "no"))
    with pytest.raises(error):
        await (client.get("fox") if method == "get" else anext(getattr(client, method)("fox")))
    assert len(server.requests) == 1
    assert time.slept_s == []


async def test_delay_that_the_server_names_is_waited_for(server: FakeServer, client: AsyncClient, time: FakeTime) -> None:
    limited = Refusal(code_pb2.RESOURCE_EXHAUSTED, "too many calls", "RATE_LIMITED", retry_delay_s=7)
    server.answers("create", limited, a_job())
    await client.create(smallest())
    assert time.slept_s == [7.2]
    assert len({request.request_id for request in server.requests}) == 1


async def test_watch_for_which_there_is_no_room_yet_begins_later(server: FakeServer, client: AsyncClient, time: FakeTime) -> None:
    full = Refusal(code_pb2.RESOURCE_EXHAUSTED, "too many streams", "TOO_MANY_STREAMS", retry_delay_s=3)
    server.answers("watch", full, [event("1", a_job(state="SUCCEEDED"))])
    assert len([job async for job in client.watch("fox")]) == 1
    assert time.slept_s == [3.2]


async def test_reader_that_was_cut_off_for_being_slow_goes_on_where_it_was(server: FakeServer, client: AsyncClient) -> None:
    slow = Refusal(code_pb2.UNAVAILABLE, "read faster", "SLOW_READER", retry_delay_s=1)
    server.answers("watch", [event("1", a_job(step=1)), slow], [event("2", a_job(state="SUCCEEDED", step=2))])
    assert [job.progress.step async for job in client.watch("fox")] == [1, 2]
    assert [request.resume_token for request in server.requests] == ["", "1"]


async def test_one_deadline_holds_over_all_tries(server: FakeServer, client: AsyncClient, time: FakeTime) -> None:
    server.answers("get", AWAY)
    with pytest.raises(errors.DeadlineExceeded, match="restarting") as caught:
        await client.within(1.0).get("fox")
    assert isinstance(caught.value, TimeoutError)
    assert time.now() == pytest.approx(1.0)
    with pytest.raises(errors.Unavailable):
        await client.get("fox")  # the client itself has no deadline


async def test_deadline_over_several_calls_is_not_begun_anew(server: FakeServer, client: AsyncClient, time: FakeTime) -> None:
    server.answers("get", AWAY, a_job(), AWAY)
    bounded = client.within(0.5)
    await bounded.get("fox")
    with pytest.raises(errors.DeadlineExceeded):
        await bounded.get("fox")
    assert time.now() == pytest.approx(0.5)


async def test_stream_that_is_left_is_ended_at_the_server(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", [event("1", a_job()), SILENCE])
    async with aclosing(client.watch("fox")) as watch:
        await anext(watch)
    assert await asyncio.to_thread(server.ended.wait, 10)


@pytest.mark.parametrize("method", ["watch", "logs"])
async def test_cancelled_task_leaves_no_stream_open(server: FakeServer, time: FakeTime, method: str) -> None:
    server.answers(method, [SILENCE])
    async with AsyncClient(server.address, tenant="acme", patience=time.patience()) as client:
        reading = asyncio.create_task(anext(getattr(client, method)("fox")))
        assert await asyncio.to_thread(server.asked.wait, 10)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await asyncio.to_thread(server.ended.wait, 10)


async def test_closing_a_client_ends_its_watches_with_an_error(server: FakeServer, client: AsyncClient) -> None:
    server.answers("watch", [event("1", a_job()), SILENCE])
    watch = client.watch("fox")
    await anext(watch)
    reading = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(errors.FailedPrecondition, match="closed"):
        await asyncio.wait_for(reading, 10)


async def test_closed_client_says_so(server: FakeServer, client: AsyncClient) -> None:
    await client.close()
    with pytest.raises(errors.FailedPrecondition) as caught:
        await client.get("fox")
    assert caught.value.reason == "CLIENT_CLOSED"


async def test_every_call_carries_the_token(server: FakeServer, client_kind: str, time: FakeTime) -> None:
    server.answers("get", a_job())
    async with opened(client_kind, server.address, credentials=Credentials(token="secret"), patience=time.patience()) as client:
        await client.get("fox")
    assert server.metadata[0]["authorization"] == "Bearer secret"


async def test_token_is_not_sent_in_plaintext_to_another_machine(client_kind: str) -> None:
    with pytest.raises(errors.InvalidInput, match="without TLS"):
        async with opened(client_kind, "192.0.2.1:7600", credentials=Credentials(token="secret")):
            pass


def test_client_for_asyncio_is_made_within_an_event_loop() -> None:
    with pytest.raises(RuntimeError):
        AsyncClient("127.0.0.1:1")


def test_both_clients_offer_the_same() -> None:
    def offered(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert offered(Client) == offered(AsyncClient)
