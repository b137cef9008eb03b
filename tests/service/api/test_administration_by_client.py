"""Both clients' administration and signed artifacts against the real servicers."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lorafleet.errors import AlreadyExists, FailedPrecondition, NotFound
from lorafleet.v1 import access_service_pb2 as pb
from tests.lorafleet.both_clients import KINDS, opened
from tests.service.api.served import Api


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest, api: Api) -> AsyncIterator[Any]:
    async with opened(request.param, api.address, tenant="blue") as client:
        yield client


async def test_tenant_is_set_up_changed_and_listed(client: Any) -> None:
    await client.create_tenant("blue", pb.Tenant(display_name="Blue", max_gpus=4))
    with pytest.raises(AlreadyExists):
        await client.create_tenant("blue")
    found = await client.get_tenant()
    assert (found.display_name, found.max_gpus) == ("Blue", 4)
    await client.update_tenant(pb.Tenant(name=found.name, max_gpus=8, etag=found.etag), ["max_gpus"])
    assert [tenant.max_gpus async for tenant in client.list_tenants() if tenant.name == "tenants/blue"] == [8]


async def test_members_tokens_and_grants_come_and_go(client: Any) -> None:
    await client.create_tenant("blue")
    await client.set_member("ann", pb.ROLE_OPERATOR)
    assert [(member.principal, member.role) async for member in client.list_members()] == [("ann", pb.ROLE_OPERATOR)]
    await client.remove_member("ann")
    assert [member async for member in client.list_members()] == []

    made = await client.create_api_token(pb.ROLE_SUBMITTER, display_name="nightly", expire_time=datetime.now(UTC) + timedelta(days=1))
    assert made.secret
    await client.revoke_api_token(made.api_token.name.rpartition("/")[2])
    assert [token.HasField("revoke_time") async for token in client.list_api_tokens()] == [True]

    await client.add_grant("s3://blue-*", may_write=True)
    assert [grant.may_write async for grant in client.list_grants()] == [True]
    await client.remove_grant("s3://blue-*")
    assert [grant async for grant in client.list_grants()] == []


async def test_reservation_is_made_and_given_back(client: Any) -> None:
    await client.create_tenant("blue")
    start = datetime.now(UTC) + timedelta(hours=1)
    await client.create_reservation("night", gpus=2, start_time=start, end_time=start + timedelta(hours=8))
    assert [reservation.gpus async for reservation in client.list_reservations()] == [2]
    await client.delete_reservation("night")
    assert [reservation async for reservation in client.list_reservations()] == []


async def test_artifact_that_is_not_there_is_not_signed(api: Api, client: Any) -> None:
    job = await api.world.submit("fox")
    with pytest.raises(FailedPrecondition):
        await client.sign_artifact(str(job))
    with pytest.raises(NotFound):
        await client.sign_artifact("unknown")
