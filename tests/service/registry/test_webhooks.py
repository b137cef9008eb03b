"""A webhook is told everything that happens to its tenant's adapters, in order, each again until it is taken, and nothing is skipped."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from lorafleet.errors import AlreadyExists, InvalidInput, NotFound, ResourceExhausted
from lorafleet.v1 import webhook_service_pb2 as pb
from service.access.identity import Identity, Role
from service.core.resource_names import parse_alias, parse_number
from service.db import locks, webhooks
from service.db.models import AuditRow
from service.db.webhook_models import AdapterEventRow, WebhookRow
from service.endpoints.addresses import parse_networks
from service.endpoints.delivery import Sender
from service.reconcile.loops import compact_once
from service.reconcile.webhooks import PRINCIPAL, deliver_once
from service.registry import deletion
from service.registry import webhooks as registered
from service.registry.aliases import AliasMove, delete_alias, set_alias
from tests.service.endpoints.receiver import Receiver, kinds, receiver
from tests.service.registry.made import finished, make_version, read_manifests
from tests.service.world import World

ANN = Identity(principal="ann")
BOSS = Identity(principal="olga", tenant="acme", role=Role.OPERATOR)


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver() as one:
        yield one


@pytest.fixture
async def hooked(world: World, there: Receiver) -> World:
    """A service with a webhook of acme's, and an adapter of two versions."""
    for _ in range(2):
        await make_version(world.tools.db, "fox")
    world.with_tools(endpoints=Sender(allowed=parse_networks(["127.0.0.0/8"], "")))
    await add(world, there)
    return world


async def add(world: World, there: Receiver, webhook_id: str = "hook", tenant: str = "acme", **fields: Any) -> pb.CreateWebhookResponse:
    webhook = pb.Webhook(url=f"http://127.0.0.1:{there.port}/{webhook_id}", **fields)
    return await registered.create(world.tools.db, world.tools.endpoints, tenant, webhook_id, webhook, ANN)


async def move(world: World, number: int, adapter: str = "fox", tenant: str = "acme") -> None:
    name = parse_alias(f"tenants/{tenant}/adapters/{adapter}@production")
    await set_alias(world.tools.db, AliasMove(name=name, number=number), ANN)


async def deliver(world: World) -> None:
    while await deliver_once(world.tools):
        pass


async def hook(world: World, webhook_id: str = "hook") -> pb.Webhook:
    return await registered.get(world.tools.db, "acme", webhook_id)


async def test_what_happens_to_an_adapter_is_told_in_order(world: World, there: Receiver):
    world.with_tools(endpoints=Sender(allowed=parse_networks(["127.0.0.0/8"], "")))
    await add(world, there)
    await finished(world, "one", output={"adapter": "fox"})
    await read_manifests(world)
    await move(world, 1)
    await delete_alias(world.tools.db, parse_alias("tenants/acme/adapters/fox@production"), "", ANN)
    await deletion.delete_version(world.tools.db, parse_number("tenants/acme/adapters/fox/versions/1"), BOSS)
    await deliver(world)
    assert kinds(there.got) == ["version.created", "version.ready", "alias.moved", "alias.deleted", "version.deleted"]
    moved = there.got[2].json
    assert (moved["tenant"], moved["adapter"], moved["data"]) == (
        "tenants/acme",
        "tenants/acme/adapters/fox",
        {"alias": "production", "version": "tenants/acme/adapters/fox/versions/1", "previous_version": 0, "by": "ann"},
    )
    assert there.got[0].json["data"]["job"] == "tenants/acme/jobs/one"


async def test_an_event_is_signed_with_the_webhooks_secret(world: World, there: Receiver):
    world.with_tools(endpoints=Sender(allowed=parse_networks(["127.0.0.0/8"], "")))
    await make_version(world.tools.db, "fox")
    secret = (await add(world, there)).secret
    await move(world, 1)
    await deliver(world)
    [got] = there.got
    signed = got.headers["lorafleet-timestamp"].encode() + b"." + got.body
    assert got.headers["lorafleet-signature"] == "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert int(got.headers["lorafleet-timestamp"]) == int(world.clock.now().timestamp())
    assert got.headers["lorafleet-event-id"] == got.json["id"]
    assert secret not in str(await hook(world))


async def test_an_event_that_is_not_taken_is_sent_again_before_any_later_one(hooked: World, there: Receiver):
    there.answers = [500, 503]
    await move(hooked, 1)
    await move(hooked, 2)
    await deliver(hooked)
    assert [one.json["data"]["version"][-1] for one in there.got] == ["1"]
    failing = await hook(hooked)
    assert (failing.failures, failing.message, failing.HasField("retry_time")) == (1, "answered 500", True)
    await deliver(hooked)
    assert len(there.got) == 1, "not before its time"
    for _ in range(2):
        hooked.clock.advance(10)
        await deliver(hooked)
    assert [one.json["data"]["version"][-1] for one in there.got] == ["1", "1", "1", "2"]
    assert len({one.json["id"] for one in there.got}) == 2, "an event keeps its id"
    assert (await hook(hooked)).failures == 0


async def test_a_dead_endpoint_is_paused_and_told_and_nothing_is_skipped_when_it_goes_on(hooked: World, there: Receiver):
    there.status = 500
    await move(hooked, 1)
    for _ in range(5):
        await deliver(hooked)
        hooked.clock.advance(7 * 3600)
    paused = await hook(hooked)
    assert (paused.state, paused.reason, paused.HasField("retry_time")) == (pb.WEBHOOK_STATE_PAUSED, "BAD_ANSWER", False)
    async with hooked.tools.db.snapshot() as tx:
        [row] = await tx.session.scalars(select(AuditRow).where(AuditRow.principal == PRINCIPAL))
    assert (row.method, row.resource, row.reason) == ("pause", "tenants/acme/webhooks/hook", "BAD_ANSWER")
    await move(hooked, 2)
    hooked.clock.advance(60 * 24 * 3600)
    await compact_once(hooked.tools)
    num_sent = len(there.got)
    await deliver(hooked)
    assert len(there.got) == num_sent
    there.status = 200
    await registered.resume(hooked.tools.db, "acme", "hook")
    await deliver(hooked)
    assert [one.json["data"]["version"][-1] for one in there.got[num_sent:]] == ["1", "2"]


async def test_an_endpoint_that_says_that_it_is_gone_is_paused_at_once(hooked: World, there: Receiver):
    there.status = 410
    await move(hooked, 1)
    await deliver(hooked)
    assert (await hook(hooked)).state == pb.WEBHOOK_STATE_PAUSED


async def test_one_webhook_that_fails_holds_up_no_other(hooked: World, there: Receiver):
    async with receiver(status=500) as dead:
        await add(hooked, dead, "dead")
        for number in (1, 2, 1):
            await move(hooked, number)
        await deliver(hooked)
        assert (len(there.got), len(dead.got)) == (3, 1)


async def test_a_webhook_is_told_of_its_own_tenant_and_its_kinds_alone(hooked: World, there: Receiver):
    db = hooked.tools.db
    async with receiver() as picky, receiver() as theirs:
        await add(hooked, picky, "picky", event_types=["alias.deleted", "alias.deleted"])
        await add(hooked, theirs, tenant="globex")
        await make_version(db, "hare", "globex")
        await move(hooked, 1, "hare", "globex")
        await move(hooked, 1)
        await delete_alias(db, parse_alias("tenants/acme/adapters/fox@production"), "", ANN)
        await deliver(hooked)
        assert (kinds(there.got), kinds(picky.got), kinds(theirs.got)) == (
            ["alias.moved", "alias.deleted"],
            ["alias.deleted"],
            ["alias.moved"],
        )
        assert {one.json["adapter"] for one in there.got} == {"tenants/acme/adapters/fox"}


async def test_a_webhook_is_told_nothing_of_before_it_was_there(hooked: World, there: Receiver):
    await move(hooked, 1)
    async with receiver() as late:
        await add(hooked, late, "late")
        await move(hooked, 2)
        await deliver(hooked)
        assert [one.json["data"]["version"][-1] for one in late.got] == ["2"]


async def test_a_change_that_is_rolled_back_is_told_nobody(hooked: World, there: Receiver):
    with pytest.raises(NotFound):
        await move(hooked, 3)
    await deliver(hooked)
    assert there.got == []


async def test_a_replica_whose_lock_has_expired_writes_nothing_over_the_next_ones(hooked: World, there: Receiver):
    """It was stopped after it had sent: the next replica sends that event once more, and goes on."""
    await move(hooked, 1)
    async with hooked.tools.db.transaction() as tx:
        [slow] = await locks.take_some(tx, WebhookRow, *webhooks.due(tx), first=WebhookRow.due_at, lock_for_s=15, most=1)
    await deliver(hooked)
    assert there.got == [], "it is locked"
    hooked.clock.advance(16)
    await deliver(hooked)
    assert len(there.got) == 1
    async with hooked.tools.db.transaction() as tx:
        assert not await locks.those_held(tx, [slow])


async def test_events_that_every_webhook_has_taken_are_forgotten_after_a_day(hooked: World, there: Receiver):
    async def num_events() -> int:
        async with hooked.tools.db.snapshot() as tx:
            return await tx.session.scalar(select(func.count()).select_from(AdapterEventRow)) or 0

    await move(hooked, 1)
    hooked.clock.advance(timedelta(days=2).total_seconds())
    await compact_once(hooked.tools)
    assert await num_events() == 1, "it is not taken yet"
    await deliver(hooked)
    await compact_once(hooked.tools)
    assert (await num_events(), len(there.got)) == (0, 1)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "http://93.184.216.34/", "https://169.254.169.254/latest", "gopher://a/"])
async def test_a_url_that_nothing_is_sent_to_is_refused_at_once(world: World, url: str):
    with pytest.raises(InvalidInput, match=r"webhook\.url"):
        await registered.create(world.tools.db, Sender(), "acme", "hook", pb.Webhook(url=url), ANN)


async def test_ids_kinds_and_numbers_are_checked(hooked: World, there: Receiver):
    with pytest.raises(AlreadyExists):
        await add(hooked, there)
    with pytest.raises(InvalidInput, match=r"event_types\[1\]"):
        await add(hooked, there, "other", event_types=["alias.moved", "alias.gone"])
    for number in range(registered.MAX_WEBHOOKS - 1):
        await add(hooked, there, f"hook-{number}")
    with pytest.raises(ResourceExhausted):
        await add(hooked, there, "one-more")
    await registered.delete(hooked.tools.db, "acme", "hook")
    await add(hooked, there, "one-more")
