"""Where packs go: warm workers to those who may use them, places to whoever comes first."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.control.capacity import Resources
from service.control.packing import ClosedBy, Pack, Sharing
from service.control.placing import AvailableCapacity, IdleHost, Placement, Release, Start, tenancy
from tests.service.control.test_packing import KEY, job

OTHER_BASE = replace(KEY, warm=replace(KEY.warm, base_uri="file:///other"))


def pack(order: int, **changes) -> Pack:
    return Pack(members=(job(order, **changes),), closed_by=ClosedBy.NO_MORE_ITEMS)


def runs(num: int) -> Resources:
    return Resources(math.inf, math.inf, num)


def admit(packs, places: AvailableCapacity) -> list:
    """Places the packs in order, as long as there is a place in reach."""
    placement, decisions, num_left = Placement(places), [], places.in_reach.runs
    packs = iter(packs)
    while num_left > 0 and (one := next(packs, None)) is not None:
        decisions += placement.place(one)
        num_left -= 1
    return decisions


def host(number: int = 1, *, key=KEY, tenant: str = "acme", sharing: Sharing = Sharing.TENANT) -> IdleHost:
    return IdleHost(run_id=f"run-{number}", host_id=f"run-{number}", key=key.warm, tenancy=frozenset({tenancy(tenant, sharing)}))


def started(decisions) -> list[tuple[str, str | None]]:
    return [(each.pack.members[0].uid, each.host.host_id if each.host else None) for each in decisions if isinstance(each, Start)]


def released(decisions) -> list[str]:
    return [each.host.host_id for each in decisions if isinstance(each, Release)]


@given(st.integers(0, 20), st.integers(0, 10))
def test_never_more_runs_than_are_free_and_never_fewer_than_fit(queued, free):
    decisions = admit((pack(order) for order in range(queued)), AvailableCapacity(free=runs(free)))
    assert started(decisions) == [(f"job-{order}", None) for order in range(min(queued, free))], "oldest first"


def test_no_pack_is_formed_that_has_no_place():
    formed = []

    def packs():
        for order in range(100):
            formed.append(order)
            yield pack(order)

    admit(packs(), AvailableCapacity(free=runs(2), idle=[host()]))
    assert formed == [0, 1, 2]


def test_warm_workers_are_preferred_to_a_free_place():
    decisions = admit([pack(0), pack(1)], AvailableCapacity(free=runs(1), idle=[host()]))
    assert started(decisions) == [("job-0", "run-1"), ("job-1", None)]


def test_workers_of_another_base_are_released_for_the_first_in_the_queue():
    decisions = admit([pack(0), pack(1, key=OTHER_BASE)], AvailableCapacity(free=runs(0), idle=[host(key=OTHER_BASE)]))
    assert (started(decisions), released(decisions)) == ([], ["run-1"]), "the second must not overtake the first"


def test_workers_that_nobody_needs_to_leave_stay():
    decisions = admit([pack(0)], AvailableCapacity(free=runs(1), idle=[host(key=OTHER_BASE)]))
    assert (started(decisions), released(decisions)) == ([("job-0", None)], [])


def test_one_place_that_is_about_to_be_free_is_enough_for_one_pack():
    decisions = admit([pack(0)], AvailableCapacity(free=runs(0), leaving=runs(1), idle=[host(key=OTHER_BASE)]))
    assert decisions == []


def test_who_comes_later_may_use_workers_that_the_first_cannot():
    idle = [host(1, key=OTHER_BASE), host(2)]
    decisions = admit([pack(0, tenant="blue"), pack(1)], AvailableCapacity(free=runs(0), idle=idle))
    assert (started(decisions), released(decisions)) == ([("job-1", "run-2")], ["run-1"])


def test_no_process_is_shared_by_tenants_that_do_not_both_want_it():
    for theirs, ours, shared in (
        (Sharing.ANYONE, Sharing.ANYONE, True),
        (Sharing.ANYONE, Sharing.TENANT, False),
        (Sharing.TENANT, Sharing.ANYONE, False),
        (Sharing.NOBODY, Sharing.ANYONE, False),
    ):
        idle = [host(tenant="blue", sharing=theirs)]
        decisions = admit([pack(0, sharing=ours)], AvailableCapacity(free=runs(0), idle=idle))
        assert bool(started(decisions)) is shared, (theirs, ours)


def test_a_tenant_follows_itself_on_warm_workers_even_when_it_wants_no_company_in_a_run():
    decisions = admit([pack(0, sharing=Sharing.NOBODY)], AvailableCapacity(free=runs(0), idle=[host(sharing=Sharing.NOBODY)]))
    assert started(decisions) == [("job-0", "run-1")]
