"""May this caller do that in this tenant."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lorafleet.errors import NotFound, PermissionDenied, Unauthenticated
from service.access.authorization import CACHE_S, Access, may_end
from service.access.identity import OPEN, Identity, Role, current_identity
from service.access.permissions import Permission
from service.db.database import Database
from service.db.transaction import Transaction
from tests.service.access.members import make_member

BOB = Identity(principal="bob")


class Seconds:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_call_without_identity_is_refused(db: Database):
    with pytest.raises(Unauthenticated):
        await Access(db).require(Permission.VIEW, "acme")


async def test_an_open_server_allows_everything_in_tenants_that_have_no_row(db: Database):
    current_identity.set(OPEN)
    access = Access(db)
    assert (await access.require(Permission.ADMINISTER, "acme")).principal == "anonymous"
    assert access.require_admin() == OPEN


async def test_an_administrator_is_one_by_identity_alone(db: Database):
    current_identity.set(BOB)
    with pytest.raises(PermissionDenied):
        Access(db).require_admin()


async def test_a_member_may_what_its_role_may(db: Database):
    await make_member(db, "acme", "bob", Role.SUBMITTER)
    current_identity.set(BOB)
    access = Access(db)
    assert await access.require(Permission.SUBMIT, "acme") == Identity(principal="bob", tenant="acme", role=Role.SUBMITTER)
    with pytest.raises(PermissionDenied, match="bob is submitter in tenant acme; this needs at least admin"):
        await access.require(Permission.MANAGE, "acme")
    with pytest.raises(PermissionDenied, match="needs an administrator of the service"):
        await access.require(Permission.ADMINISTER, "acme")


async def test_another_tenant_is_not_found_whether_or_not_there_is_one(db: Database):
    await make_member(db, "acme", "bob", Role.ADMIN)
    await make_member(db, "other", "eve", Role.ADMIN)
    current_identity.set(BOB)
    access = Access(db)
    told = []
    for tenant in ("other", "nowhere"):
        with pytest.raises(NotFound) as raised:
            await access.require(Permission.VIEW, tenant)
        told.append((raised.value.reason, raised.value.message.replace(tenant, "TENANT")))
    assert told[0] == told[1]


async def test_a_token_has_its_own_role_in_its_own_tenant_alone(db: Database):
    await make_member(db, "acme", "bob", Role.ADMIN)
    await make_member(db, "other", "bob", Role.ADMIN)
    current_identity.set(Identity(principal="bob", tenant="acme", role=Role.VIEWER))
    access = Access(db)
    await access.require(Permission.VIEW, "acme")
    with pytest.raises(PermissionDenied):
        await access.require(Permission.SUBMIT, "acme")
    with pytest.raises(NotFound):
        await access.require(Permission.VIEW, "other")


async def test_a_changed_membership_counts_at_once_here_and_soon_elsewhere(db: Database):
    await make_member(db, "acme", "bob", Role.VIEWER)
    clock = Seconds()
    current_identity.set(BOB)
    here, elsewhere = Access(db, monotonic=clock), Access(db, monotonic=clock)
    for access in (here, elsewhere):
        assert (await access.require(Permission.VIEW, "acme")).role == Role.VIEWER
    await make_member(db, "acme", "bob", Role.ADMIN)
    here.forget("acme")
    assert (await here.require(Permission.VIEW, "acme")).role == Role.ADMIN
    assert (await elsewhere.require(Permission.VIEW, "acme")).role == Role.VIEWER
    clock.now += CACHE_S
    assert (await elsewhere.require(Permission.VIEW, "acme")).role == Role.ADMIN


async def test_a_membership_that_changes_while_it_is_read_is_not_remembered_as_it_was(db: Database, monkeypatch: pytest.MonkeyPatch):
    await make_member(db, "acme", "bob", Role.VIEWER)
    current_identity.set(BOB)
    access = Access(db)

    @asynccontextmanager
    async def snapshot() -> AsyncIterator[Transaction]:
        async with Database.snapshot(db) as tx:
            yield tx
        if access._num_forgotten == 0:
            await make_member(db, "acme", "bob", Role.ADMIN)
            access.forget("acme")

    monkeypatch.setattr(db, "snapshot", snapshot)
    await access.require(Permission.VIEW, "acme")
    assert (await access.require(Permission.VIEW, "acme")).role == Role.ADMIN


@pytest.mark.parametrize("role", [Role.SUBMITTER, Role.OPERATOR])
def test_one_ends_what_is_ones_own_and_an_operator_the_others_too(role: Role):
    caller = Identity(principal="bob", tenant="acme", role=role)
    may_end(caller, "bob")
    if role is Role.OPERATOR:
        may_end(caller, "eve")
    else:
        with pytest.raises(PermissionDenied):
            may_end(caller, "eve")
