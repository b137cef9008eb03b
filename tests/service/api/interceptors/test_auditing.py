"""Every write leaves one row: who, what, when, from where, and how it ended."""

import logging
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from sqlalchemy import select

from lorafleet.v1 import access_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from lorafleet.v1 import webhook_service_pb2 as webhooks_pb
from lorafleet.v1 import webhook_service_pb2_grpc
from service.access.identity import Identity, Role
from service.api.interceptors import auditing
from service.db import audit
from service.db.models import AuditRow
from tests.service.access.members import make_member, make_tenant
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.api.test_access import METHODS, STRANGER, call

WRITES = [method for method in METHODS if not method.name.startswith(auditing.READS)]
ACME = "tenants/acme"


async def rows(api: Api) -> list[AuditRow]:
    async with api.world.tools.db.snapshot() as tx:
        return list(await tx.session.scalars(select(AuditRow).order_by(AuditRow.time, AuditRow.uid)))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_a_refused_try_leaves_one_row_and_a_read_none(api: Api, method: MethodDescriptor):
    await make_tenant(api.world.tools.db, "acme")
    api.caller.identity = STRANGER
    await refusal(call(api, method))
    found = [(row.tenant, row.principal, row.method, row.code, row.reason, row.peer.partition(":")[0]) for row in await rows(api)]
    wanted = ("acme", "eve", f"{method.containing_service.full_name}/{method.name}", "NOT_FOUND", "TENANT_NOT_FOUND", "ipv4")
    assert found == ([wanted] if method in WRITES else [])


async def test_what_is_done_leaves_one_row_each_with_the_name_of_the_thing(api: Api):
    done: list[tuple[Any, Any, str]] = [
        (api.access.CreateTenant, pb.CreateTenantRequest(tenant_id="acme"), ACME),
        (
            api.access.SetMember,
            pb.SetMemberRequest(parent=ACME, member=pb.Member(principal="bob", role=pb.ROLE_VIEWER)),
            f"{ACME}/members/bob",
        ),
        (api.access.RemoveMember, pb.RemoveMemberRequest(parent=ACME, principal="bob"), f"{ACME}/members/bob"),
        (api.jobs.CreateTrainingJob, api.request(training_job_id="mine"), f"{ACME}/jobs/mine"),
        (api.jobs.CancelTrainingJob, jobs_pb.CancelTrainingJobRequest(name=f"{ACME}/jobs/mine"), f"{ACME}/jobs/mine"),
        (api.jobs.CancelTrainingJob, jobs_pb.CancelTrainingJobRequest(name=f"{ACME}/jobs/mine"), f"{ACME}/jobs/mine"),
    ]
    for method, request, _ in done:
        await method(request)
        api.world.clock.advance(1)
    assert [(row.resource, row.principal, row.code) for row in await rows(api)] == [(name, "anonymous", "OK") for *_, name in done]


async def test_a_job_whose_id_the_server_chose_is_in_the_log_by_its_name(api: Api):
    job = await api.jobs.CreateTrainingJob(api.request())
    assert [row.resource for row in await rows(api)] == [job.name]


async def test_a_webhook_is_in_the_log_by_its_name(api: Api):
    hook = webhooks_pb.Webhook(url="https://93.184.215.14/")
    create = webhook_service_pb2_grpc.WebhookServiceStub(api.channel).CreateWebhook
    await create(webhooks_pb.CreateWebhookRequest(parent=ACME, webhook_id="hook", webhook=hook))
    api.world.clock.advance(1)
    await refusal(create(webhooks_pb.CreateWebhookRequest(parent=ACME, webhook_id="hook", webhook=hook)))
    assert [(row.resource, row.code) for row in await rows(api)] == [(f"{ACME}/webhooks/hook", code) for code in ("OK", "ALREADY_EXISTS")]


async def test_what_is_only_validated_is_no_write(api: Api):
    await api.jobs.CreateTrainingJob(api.request(validate_only=True))
    assert await rows(api) == []


async def test_a_write_is_not_lost_with_its_row(api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room")

    job = await api.jobs.CreateTrainingJob(api.request(request_id="8f8be0f4-5f4c-4a8e-9d3a-111111111111"))
    monkeypatch.setattr(audit, "append", broken)
    with caplog.at_level(logging.ERROR):  # a repeat writes nothing, so its row is written afterwards
        again = await api.jobs.CreateTrainingJob(api.request(request_id="8f8be0f4-5f4c-4a8e-9d3a-111111111111"))
    assert again.uid == job.uid
    assert "no audit row" in caplog.text


async def test_the_log_is_read_by_time_and_page_and_only_by_admins(api: Api):
    for _ in range(5):
        await api.jobs.CreateTrainingJob(api.request())
        api.world.clock.advance(10)
    await make_member(api.world.tools.db, "acme", "ada", Role.ADMIN)
    api.caller.identity = Identity(principal="ada")
    request = pb.ListAuditEventsRequest(parent=ACME, page_size=2)
    seen = []
    while True:
        page = await api.access.ListAuditEvents(request)
        seen += [event.time.seconds for event in page.audit_events]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (len(seen), seen) == (5, sorted(seen, reverse=True))
    some = await api.access.ListAuditEvents(
        pb.ListAuditEventsRequest(parent=ACME, start_time={"seconds": seen[3]}, end_time={"seconds": seen[1]})
    )
    assert [event.time.seconds for event in some.audit_events] == [seen[2], seen[3]]
    other = pb.ListAuditEventsRequest(parent=ACME, page_token=request.page_token, start_time={"seconds": 1})
    assert (await refusal(api.access.ListAuditEvents(other))).reason == "BAD_PAGE_TOKEN"


@pytest.mark.parametrize("principal", ["bob\x00", "bob\n", "\u202e"])
async def test_no_name_keeps_a_refused_try_out_of_the_log(api: Api, principal: str):
    await make_tenant(api.world.tools.db, "acme")
    api.caller.identity = STRANGER
    await refusal(api.access.RemoveMember(pb.RemoveMemberRequest(parent=ACME, principal=principal)))
    [row] = await rows(api)
    assert (row.code, row.tenant) == ("NOT_FOUND", "acme")
    assert row.resource.isprintable()
