"""Every RPC of every service, called with mutated messages over a real channel: refused in good form or answered, never broken.

LORAFLEET_FUZZ_EXAMPLES sets how many messages each method gets (12); `make proofs` sends more, `make fuzz` many more.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorafleet.v1 import access_service_pb2 as access_pb
from lorafleet.v1 import adapter_service_pb2 as adapter_pb
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import generation_service_pb2 as generation_pb
from lorafleet.v1 import report_service_pb2 as report_pb
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import webhook_service_pb2 as webhook_pb
from service.access import api_tokens
from service.access.identity import Role
from service.endpoints.addresses import Address
from service.endpoints.delivery import NotDelivered
from service.reconcile.imports import import_once
from service.reconcile.loops import compact_once
from service.reconcile.retention import retain_once
from tests.service.access.members import make_grant, make_member
from tests.service.api.batch_requests import create, header, item
from tests.service.api.generation_requests import create_generation, generation_request, generation_spec
from tests.service.api.methods import methods
from tests.service.api.served import Api
from tests.service.registry.files import kohya_file
from tests.service.registry.made import make_version
from tests.service.security.messages import at_edges, mutated, wild
from tests.service.world import progress

EXAMPLES = int(os.environ.get("LORAFLEET_FUZZ_EXAMPLES", "12"))
ANSWER_S = 20.0
METHODS = methods()
STREAMED = 4  # answers of a stream that are read before it is left
BROKEN = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.DATA_LOSS}
INSIDE = ("traceback", "sqlalchemy", "sqlite", "psycopg", "select ", "insert into", 'file "', '.py"', ".py:", "lorafleet.db")


FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(repr=False)
class Lived:
    """A service with some life in it, that must still live after the test."""

    api: Api
    run: str
    seeds: list[Message]


@pytest.fixture
async def lived(api: Api) -> AsyncIterator[Lived]:
    _, run = await api.world.running("one", labels={"team": "red"})
    await create(api, [item(), item()])
    await make_member(api.world.tools.db, "acme", "bob", Role.SUBMITTER)
    await make_grant(api.world.tools.db, "acme", f"file://{api.world.folder}", may_write=True)
    for _ in range(2):
        await make_version(api.world.tools.db, "fox", quality={"clip": 0.5})
    api.world.tools.endpoints.resolve = _no_name  # a name that is made up is asked of nobody
    await create_generation(api, generation_id="foxes")
    (api.world.folder / "kohya.safetensors").write_bytes(kohya_file())
    yield Lived(api, run, list(_seeds(api, run)))
    job = await api.jobs.CreateTrainingJob(api.request())
    assert await api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=job.name)) == job
    for _ in range(3):
        await api.world.settle()
        await api.world.copy_logs()
        await compact_once(api.world.tools)
        await retain_once(api.world.tools)
        await import_once(api.world.tools)
        api.world.clock.advance(30)


async def _no_name(host: str, port: int) -> list[Address]:
    raise NotDelivered(f"{host} has no address", reason="NAME_NOT_FOUND")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FUZZ
@given(data=st.data())
async def test_mutated_messages_break_nothing(lived: Lived, method: MethodDescriptor, data: st.DataObject):
    good = [seed for seed in lived.seeds if seed.DESCRIPTOR is method.input_type]
    assert good, f"{method.input_type.name} has no good message to begin with: add one to _seeds"
    one = st.sampled_from(good).flatmap(mutated) | wild(method.input_type)
    sent = data.draw(st.lists(one, max_size=4) if method.client_streaming else one)
    token = data.draw(st.sampled_from([lived.api.world.tools.tokens.of(lived.run, lived.api.world.clock.now()), "", "x"]))
    await _call(lived.api.channel, method, sent, token)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_each_field_at_its_edges_breaks_nothing(lived: Lived, method: MethodDescriptor):
    token = lived.api.world.tools.tokens.of(lived.run, lived.api.world.clock.now())
    for good in [seed for seed in lived.seeds if seed.DESCRIPTOR is method.input_type]:
        for message in at_edges(good):
            await _call(lived.api.channel, method, [message] if method.client_streaming else message, token)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FUZZ
@given(data=st.data())
async def test_bytes_that_are_no_message_break_nothing(lived: Lived, method: MethodDescriptor, data: st.DataObject):
    good = data.draw(st.sampled_from([seed.SerializeToString() for seed in lived.seeds if seed.DESCRIPTOR is method.input_type]))
    sent = data.draw(st.binary(max_size=200) | _cut(good) | _flipped(good))
    await _call(lived.api.channel, method, [sent] if method.client_streaming else sent, "")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_text_that_is_no_utf8_is_refused(api: Api, method: MethodDescriptor):
    field = next(field for field in method.input_type.fields if field.type in {field.TYPE_STRING, field.TYPE_MESSAGE})
    text = b"\xff\xfe" if field.type == field.TYPE_STRING else b"\x0a\x02\xff\xfe"  # in a message: its field 1, a string
    sent = bytes([field.number << 3 | 2, len(text)]) + text
    code = await _call(api.channel, method, [sent] if method.client_streaming else sent, "", read_for_s=ANSWER_S)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def _seeds(api: Api, run: str) -> Iterator[Message]:
    """At least one good message for each method."""
    one, night = "tenants/acme/jobs/one", "tenants/acme/batches/night"
    head, items = header(api.world, batch_id="other"), batch_pb.BatchItems(items=[item(), item("named", adapter={"rank": 8})])
    yield api.request(request_id="7f6ab3ac-6f6b-4a38-9b32-6f1ed6b6a2f1", training_job_id="two")
    yield pb.GetTrainingJobRequest(name=one)
    yield pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=2, filter='state = RUNNING AND labels.team = "red"')
    yield pb.CancelTrainingJobRequest(name=one, etag="x")
    yield pb.WatchTrainingJobsRequest(parent="tenants/acme", name=one)
    yield pb.StreamTrainingJobLogsRequest(name=one, attempt=1)
    yield pb.SignArtifactRequest(name=one, expire_s=60)
    yield from (batch_pb.CreateBatchRequest(header=head), batch_pb.CreateBatchRequest(items=items))
    yield from (batch_pb.PlanBatchRequest(header=head), batch_pb.PlanBatchRequest(items=items))
    yield batch_pb.GetBatchRequest(name=night)
    yield batch_pb.ListBatchesRequest(parent="tenants/acme", page_size=1)
    yield batch_pb.ListBatchJobsRequest(parent=night, page_size=1, filter="state = QUEUED")
    yield batch_pb.WatchBatchRequest(name=night)
    yield batch_pb.CancelBatchRequest(name=night)
    yield batch_pb.RetryFailedRequest(name=night)
    ended = report_pb.RunEvent(
        sequence=3, job=one, ended=report_pb.StyleEnded(outcome=report_pb.STYLE_OUTCOME_STOPPED, reason="R", message="m")
    )
    told = [progress(2), report_pb.RunEvent(sequence=2, job=one, resumed=report_pb.Resumed(step=1)), ended]
    yield report_pb.ReportRequest(run=run, source="driver", events=told)
    yield from _generation_seeds(api)
    yield from _adapter_seeds()
    kohya = f"file://{api.world.folder}/kohya.safetensors"
    asked = {"labels": {"team": "red"}, "family": "sd1", "trigger": "sks", "sha256": "ab" * 32}
    yield adapter_pb.ImportAdapterRequest(
        name="tenants/acme/adapters/other", uri=kohya, parents=["tenants/acme/adapters/fox@production"], **asked
    )
    yield adapter_pb.WatchAdaptersRequest(parent="tenants/acme", name="tenants/acme/adapters/fox")
    yield from _webhook_seeds()
    yield from _access_seeds()


def _generation_seeds(api: Api) -> Iterator[Message]:
    parent, name = "tenants/acme", "tenants/acme/generations/foxes"
    spec = {**generation_spec(api), "seeds": [1, 2], "weights": [0.5, 1], "negative_prompts": ["blurry"], "labels": {"team": "red"}}
    asked = generation_request(api, **spec, adapters=[{"uses": [{"uri": "adapters/fox/versions/1", "weight": 0.5}]}, {}])
    yield generation_pb.CreateGenerationRequest(parent=parent, generation=asked, generation_id="two", request_id=str(uuid4()))
    yield generation_pb.GetGenerationRequest(name=name)
    yield generation_pb.ListGenerationsRequest(parent=parent, page_size=1, filter='state = QUEUED AND labels.team = "red"')
    yield generation_pb.CancelGenerationRequest(name=name, etag="x")
    yield generation_pb.WatchGenerationsRequest(parent=parent, name=name)
    yield generation_pb.SignGenerationRequest(name=name, expire_s=60)


def _adapter_seeds() -> Iterator[Message]:
    fox = "tenants/acme/adapters/fox"
    yield adapter_pb.GetAdapterRequest(name=fox)
    yield adapter_pb.ListAdaptersRequest(parent="tenants/acme", page_size=1, filter="rank > 3 AND quality.clip < 1", order_by="name")
    yield adapter_pb.GetAdapterVersionRequest(name=f"{fox}/versions/1")
    yield adapter_pb.ListAdapterVersionsRequest(parent=fox, page_size=1)
    yield adapter_pb.SetAdapterAliasRequest(name=f"{fox}@production", version=1, expected_version=0, etag="x")
    yield adapter_pb.DeleteAdapterAliasRequest(name=f"{fox}@production", etag="x")
    kept = adapter_pb.Adapter(name=fox, etag="x", retention=adapter_pb.RetentionRule(keep_newest=1, keep_days=2))
    yield adapter_pb.UpdateAdapterRequest(adapter=kept, update_mask={"paths": ["retention"]})
    yield adapter_pb.DeleteAdapterRequest(name=fox, etag="x")
    yield adapter_pb.UndeleteAdapterRequest(name=fox)
    yield adapter_pb.DeleteAdapterVersionRequest(name=f"{fox}/versions/1")
    yield adapter_pb.UndeleteAdapterVersionRequest(name=f"{fox}/versions/1")
    yield adapter_pb.SignAdapterVersionRequest(name=f"{fox}@production", expire_s=60)


def _webhook_seeds() -> Iterator[Message]:
    name = "tenants/acme/webhooks/hook"
    webhook = webhook_pb.Webhook(url="https://93.184.216.34:8443/hook?a=b", event_types=["alias.moved"])
    yield webhook_pb.CreateWebhookRequest(parent="tenants/acme", webhook_id="hook", webhook=webhook)
    yield webhook_pb.GetWebhookRequest(name=name)
    yield webhook_pb.ListWebhooksRequest(parent="tenants/acme", page_size=1)
    yield webhook_pb.DeleteWebhookRequest(name=name)
    yield webhook_pb.ResumeWebhookRequest(name=name)


def _access_seeds() -> Iterator[Message]:
    acme = "tenants/acme"
    limits = access_pb.Tenant(
        display_name="Acme", weight=2, max_gpus=8, max_running_jobs=4, max_queued_jobs=9, max_storage_bytes=2**40, adapter_keep_days=9
    )
    yield access_pb.CreateTenantRequest(tenant_id="beta", tenant=limits)
    yield access_pb.GetTenantRequest(name=acme)
    yield access_pb.ListTenantsRequest(page_size=1)
    changed = access_pb.Tenant(name=acme, display_name="Acme", max_requests_per_s=50, is_isolated=True)
    yield access_pb.UpdateTenantRequest(tenant=changed, update_mask={"paths": ["display_name", "max_requests_per_s", "is_isolated"]})
    yield access_pb.SetMemberRequest(parent=acme, member=access_pb.Member(principal="eve", role=access_pb.ROLE_VIEWER))
    yield access_pb.ListMembersRequest(parent=acme, page_size=1)
    yield access_pb.RemoveMemberRequest(parent=acme, principal="bob")
    token = access_pb.ApiToken(display_name="ci", role=access_pb.ROLE_SUBMITTER, expire_time={"seconds": 2**32})
    yield access_pb.CreateApiTokenRequest(parent=acme, api_token=token)
    yield access_pb.ListApiTokensRequest(parent=acme, page_size=1)
    yield access_pb.RevokeApiTokenRequest(name=f"{acme}/tokens/{api_tokens.new_token().id}")
    yield access_pb.AddGrantRequest(parent=acme, grant=access_pb.Grant(prefix="s3://acme/styles", may_write=True))
    yield access_pb.ListGrantsRequest(parent=acme, page_size=1)
    yield access_pb.RemoveGrantRequest(parent=acme, prefix="s3://acme-*")
    night = access_pb.Reservation(gpus=2, start_time={"seconds": 2**31}, end_time={"seconds": 2**32})
    yield access_pb.CreateReservationRequest(parent=acme, reservation_id="night", reservation=night)
    yield access_pb.ListReservationsRequest(parent=acme, page_size=1)
    yield access_pb.DeleteReservationRequest(name=f"{acme}/reservations/night")
    yield access_pb.ListAuditEventsRequest(parent=acme, page_size=1, start_time={"seconds": 1}, end_time={"seconds": 2**32})


async def _call(channel: grpc.aio.Channel, method: MethodDescriptor, sent: Any, token: str, *, read_for_s: float = 0.05) -> grpc.StatusCode:
    """Calls and judges the answer."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    serde = {"request_serializer": _bytes, "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString}
    how: dict[str, Any] = {"timeout": ANSWER_S, "metadata": (("authorization", f"Bearer {token}"),)}
    code = grpc.StatusCode.OK
    try:
        if method.client_streaming:
            await channel.stream_unary(path, **serde)(iter(sent), **how)
        elif method.server_streaming:
            await _read_some(channel.unary_stream(path, **serde)(sent, **how), read_for_s)
        else:
            await channel.unary_unary(path, **serde)(sent, **how)
    except grpc.aio.AioRpcError as error:
        code, told = error.code(), f"{error.details()} {error.trailing_metadata()}"
        assert code not in BROKEN, f"{told}: {str(sent)[:1000]}"
        assert not any(word in told.lower() for word in INSIDE), told
    return code


async def _read_some(stream: Any, read_for_s: float) -> None:
    for _ in range(STREAMED):
        try:
            async with asyncio.timeout(read_for_s):
                if await stream.read() is grpc.aio.EOF:
                    return
        except TimeoutError:
            break
    stream.cancel()


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _cut(good: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, len(good)).map(lambda end: good[:end])


def _flipped(good: bytes) -> st.SearchStrategy[bytes]:
    places = st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(1, 255)), min_size=1, max_size=4)
    return places.map(lambda flips: bytes(byte ^ dict(flips).get(place, 0) for place, byte in enumerate(good)))
