"""Another tenant's things are not there, whatever is asked: every method of every public service is tried."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from sqlalchemy import delete

from lorafleet.v1 import training_service_pb2
from service.access.identity import Identity, Role
from service.db.models import MemberRow
from tests.service.access.members import make_grant, make_member
from tests.service.api import batch_requests
from tests.service.api.generation_requests import create_generation
from tests.service.api.methods import methods
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.registry.made import make_version

OF_NO_TENANT = {"CreateTenant", "ListTenants"}  # their own tests: test_administering.py
OF_RUNS = "ReportService"  # which have their tokens: test_reports.py
METHODS = [method for method in methods() if method.containing_service.name != OF_RUNS and method.name not in OF_NO_TENANT]
FOR_ADMINS = {"ListApiTokens", "ListAuditEvents", "GetWebhook", "ListWebhooks"}  # of the tenant
# A viewer may, and hears why not here.
UNSIGNED = {"SignArtifact": "NO_ARTIFACT", "SignGeneration": "NO_ARTIFACT", "SignAdapterVersion": "ARTIFACT_CHANGED"}
STRANGER = Identity(principal="eve")

# How each method names something of tenant acme's. One that is missing here makes a test red: say how a stranger would
# call it, and the tests below see whether it is refused.
JOB, BATCH, ACME = {"name": "tenants/acme/jobs/mine"}, {"name": "tenants/acme/batches/night"}, {"parent": "tenants/acme"}
ADAPTER, GENERATION = "tenants/acme/adapters/fox", {"name": "tenants/acme/generations/foxes"}
AIMED_AT: dict[str, dict[str, Any]] = {
    "GetAdapter": {"name": ADAPTER},
    "ListAdapters": ACME,
    "GetAdapterVersion": {"name": f"{ADAPTER}/versions/1"},
    "ListAdapterVersions": {"parent": ADAPTER},
    "SetAdapterAlias": {"name": f"{ADAPTER}@candidate", "version": 1},
    "DeleteAdapterAlias": {"name": f"{ADAPTER}@candidate"},
    "CreateWebhook": {**ACME, "webhook_id": "hook", "webhook": {"url": "https://192.0.2.1/"}},
    "GetWebhook": {"name": "tenants/acme/webhooks/hook"},
    "ListWebhooks": ACME,
    "DeleteWebhook": {"name": "tenants/acme/webhooks/hook"},
    "ResumeWebhook": {"name": "tenants/acme/webhooks/hook"},
    "WatchAdapters": ACME,
    "ImportAdapter": {"name": ADAPTER, "uri": "file:///x.safetensors"},
    "UpdateAdapter": {"adapter": {"name": ADAPTER}, "update_mask": {"paths": ["retention"]}},
    "DeleteAdapter": {"name": ADAPTER},
    "UndeleteAdapter": {"name": ADAPTER},
    "DeleteAdapterVersion": {"name": f"{ADAPTER}/versions/1"},
    "UndeleteAdapterVersion": {"name": f"{ADAPTER}/versions/1"},
    "SignAdapterVersion": {"name": f"{ADAPTER}/versions/1"},
    "CreateGeneration": ACME,
    "GetGeneration": GENERATION,
    "ListGenerations": ACME,
    "CancelGeneration": GENERATION,
    "WatchGenerations": ACME,
    "SignGeneration": GENERATION,
    "CreateTrainingJob": ACME,
    "GetTrainingJob": JOB,
    "ListTrainingJobs": ACME,
    "CancelTrainingJob": JOB,
    "WatchTrainingJobs": ACME,
    "StreamTrainingJobLogs": JOB,
    "SignArtifact": JOB,
    "CreateBatch": {"header": ACME},
    "PlanBatch": {"header": ACME},
    "GetBatch": BATCH,
    "ListBatches": ACME,
    "ListBatchJobs": {"parent": "tenants/acme/batches/night"},
    "WatchBatch": BATCH,
    "CancelBatch": BATCH,
    "RetryFailed": BATCH,
    "GetTenant": {"name": "tenants/acme"},
    "UpdateTenant": {"tenant": {"name": "tenants/acme", "max_gpus": 9}, "update_mask": {"paths": ["max_gpus"]}},
    "SetMember": {**ACME, "member": {"principal": "eve", "role": "ROLE_ADMIN"}},
    "ListMembers": ACME,
    "RemoveMember": {**ACME, "principal": "bob"},
    "CreateApiToken": {**ACME, "api_token": {"role": "ROLE_VIEWER"}},
    "ListApiTokens": ACME,
    "RevokeApiToken": {"name": "tenants/acme/tokens/0123456789abcdef"},
    "AddGrant": {**ACME, "grant": {"prefix": "s3://eve"}},
    "ListGrants": ACME,
    "RemoveGrant": {**ACME, "prefix": "s3://acme"},
    "CreateReservation": {
        **ACME,
        "reservation_id": "night",
        "reservation": {"gpus": 1, "start_time": {"seconds": 1}, "end_time": {"seconds": 2}},
    },
    "ListReservations": ACME,
    "DeleteReservation": {"name": "tenants/acme/reservations/night"},
    "ListAuditEvents": ACME,
}


def call(api: Api, method: MethodDescriptor, **more: Any) -> Awaitable[Any]:
    """The method, called on what AIMED_AT says."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = message_factory.GetMessageClass(method.input_type)(**{**AIMED_AT[method.name], **more})
    response = message_factory.GetMessageClass(method.output_type)
    kind: Callable[..., Any] = getattr(
        api.channel, f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    )
    stub = kind(path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString)
    answer = stub(iter([request]) if method.client_streaming else request)
    return _first(answer) if method.server_streaming else answer


async def _first(stream: Any) -> Any:
    first = None
    async for answer in stream:
        first = first or answer
        if not getattr(answer, "snapshot", False):  # a watch is left where it waits: after its snapshot
            break
    stream.cancel()
    return first


@pytest.fixture
async def acme(api: Api) -> Api:
    """A server on which acme has a job, a batch and an adapter, and eve is the admin of another tenant."""
    await api.jobs.CreateTrainingJob(api.request(training_job_id="mine"))
    await batch_requests.create(api, [batch_requests.item("one")])
    await create_generation(api, generation_id="foxes")
    await make_member(api.world.tools.db, "acme", "bob", Role.SUBMITTER)
    await make_grant(api.world.tools.db, "acme", f"file://{api.world.folder}")
    await make_member(api.world.tools.db, "other", "eve", Role.ADMIN)
    await make_version(api.world.tools.db, "fox")
    return api


def test_every_method_is_tried():
    assert {method.name for method in METHODS} == set(AIMED_AT)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_a_stranger_is_told_that_there_is_no_such_thing(acme: Api, method: MethodDescriptor):
    acme.caller.identity = STRANGER
    assert (await refusal(call(acme, method))).code == "NOT_FOUND"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_a_token_of_another_tenant_opens_nothing(acme: Api, method: MethodDescriptor):
    acme.caller.identity = Identity(principal="bob", tenant="other", role=Role.ADMIN)
    assert (await refusal(call(acme, method))).code == "NOT_FOUND"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_without_identity_nothing_is_answered(acme: Api, method: MethodDescriptor):
    acme.caller.identity = None
    assert (await refusal(call(acme, method))).code == "UNAUTHENTICATED"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_a_viewer_reads_and_changes_nothing(acme: Api, method: MethodDescriptor):
    await make_member(acme.world.tools.db, "acme", "vera", Role.VIEWER)
    acme.caller.identity = Identity(principal="vera")
    if method.name in FOR_ADMINS:
        assert (await refusal(call(acme, method))).code == "PERMISSION_DENIED"
    elif method.name in UNSIGNED:
        assert (await refusal(call(acme, method))).reason == UNSIGNED[method.name]
    elif method.name.startswith(("Get", "List", "Watch", "Stream")):
        await call(acme, method)
    else:
        assert (await refusal(call(acme, method))).code == "PERMISSION_DENIED"


async def test_page_and_resume_tokens_of_another_tenant_are_no_good(acme: Api):
    await acme.jobs.CreateTrainingJob(acme.request())
    page = await acme.jobs.ListTrainingJobs(training_service_pb2.ListTrainingJobsRequest(parent="tenants/acme", page_size=1))
    watch = acme.jobs.WatchTrainingJobs(training_service_pb2.WatchTrainingJobsRequest(parent="tenants/acme"))
    event = await _first(watch)
    acme.caller.identity = STRANGER
    listing = training_service_pb2.ListTrainingJobsRequest(parent="tenants/other", page_token=page.next_page_token)
    assert (await refusal(acme.jobs.ListTrainingJobs(listing))).reason == "BAD_PAGE_TOKEN"
    again = training_service_pb2.WatchTrainingJobsRequest(parent="tenants/other", resume_token=event.resume_token)
    assert (await refusal(_first(acme.jobs.WatchTrainingJobs(again)))).reason == "BAD_RESUME_TOKEN"


async def test_a_submitter_ends_its_own_and_an_operator_the_others_too(acme: Api):
    await make_member(acme.world.tools.db, "acme", "olga", Role.OPERATOR)
    acme.caller.identity = Identity(principal="bob")
    own = await acme.jobs.CreateTrainingJob(acme.request())
    await acme.jobs.CancelTrainingJob(training_service_pb2.CancelTrainingJobRequest(name=own.name))
    for method in ("CancelTrainingJob", "CancelBatch", "CancelGeneration", "RetryFailed"):
        [descriptor] = [one for one in METHODS if one.name == method]
        acme.caller.identity = Identity(principal="bob")
        assert (await refusal(call(acme, descriptor))).code == "PERMISSION_DENIED"
        acme.caller.identity = Identity(principal="olga")
        await call(acme, descriptor)


async def test_a_watch_ends_when_its_watcher_is_no_member_any_more(acme: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.access.authorization.CACHE_S", 0.0)
    acme.caller.identity = Identity(principal="bob")
    watch = acme.jobs.WatchTrainingJobs(training_service_pb2.WatchTrainingJobsRequest(parent="tenants/acme"))
    while (await watch.read()).snapshot:
        pass
    async with acme.world.tools.db.transaction() as tx:
        await tx.session.execute(delete(MemberRow))
    await acme.world.submit()
    assert (await refusal(watch.read())).code == "NOT_FOUND"
