"""A round of admission: quotas hold, nothing idles for nothing, nobody waits for ever, and who is pushed aside is of a lower class."""

import math
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.control.admission import Limits, WaitReason, shares_of, usage_of
from service.control.capacity import Resources
from service.control.capacity_profile import Window
from service.control.packing import PackLimits, Sharing
from service.control.priority import PriorityClass, class_of
from service.control.quotas import UNLIMITED, Quota
from tests.service.control.queues import (
    NOW_S,
    TENANTS,
    cluster,
    decided,
    jobs_of_all_kinds,
    live,
    quotas,
    running,
    started,
    wants,
    windows,
)


def reasons(made) -> dict[str, WaitReason]:
    return {uid: wait.reason for uid, wait in made.waits.items()}


@settings(deadline=None)
@given(jobs_of_all_kinds, running, quotas, windows)
def test_quotas_and_the_capacity_are_never_exceeded(queue, busy, limits, kept):
    situation = cluster(8, runs=6, running=busy, quotas=limits, windows=kept)
    before = usage_of(busy)
    made = decided(queue, situation)
    gpus, jobs, total = defaultdict(float), Counter(), Resources()
    for start in made.starts:
        total = total.plus(start.pack.demand)
        for tenant in {member.tenant for member in start.pack.members}:
            gpus[tenant] += start.pack.demand.gpus
        jobs.update(member.tenant for member in start.pack.members)
    assert not made.starts or total.fits(situation.available.free)
    for tenant in jobs:
        quota, used = limits.get(tenant, UNLIMITED), before.get(tenant)
        used_gpus, used_jobs = (used.gpus, used.running_jobs) if used else (0, 0)
        assert quota.max_running_jobs is None or used_jobs + jobs[tenant] <= quota.max_running_jobs
        if gpus[tenant]:
            assert quota.max_gpus is None or used_gpus + gpus[tenant] <= quota.max_gpus + 1e-6


@settings(deadline=None)
@given(jobs_of_all_kinds, running, quotas, windows)
def test_every_job_starts_once_or_waits_for_a_reason(queue, busy, limits, kept):
    made = decided(queue, cluster(8, runs=6, running=busy, quotas=limits, windows=kept))
    assert sorted([*started(made), *made.waiting]) == sorted(job.uid for job in queue)
    assert set(made.waits) == set(made.waiting)


@settings(deadline=None)
@given(jobs_of_all_kinds, running, quotas, windows)
def test_what_fits_starts_unless_it_is_kept_for_somebody(queue, busy, limits, kept):
    situation = cluster(8, runs=6, running=busy, quotas=limits, windows=kept)
    made = decided(queue, situation)
    left = situation.available.free
    for start in made.starts:
        left = left.minus(start.pack.demand)
    for job in queue:
        if reasons(made).get(job.uid) in {WaitReason.CLUSTER_FULL, WaitReason.NO_FREE_RUN}:
            assert not job.demand.fits(left), "it fits, and nothing is kept from it"
    if not kept and not any(reason is WaitReason.RESERVED for reason in reasons(made).values()) and not made.preemptions:
        for job in queue:
            if job.uid in made.waits and job.demand.fits(left):
                assert reasons(made)[job.uid] in {WaitReason.TENANT_QUOTA, WaitReason.EXCEEDS_CAPACITY}


@settings(deadline=None)
@given(jobs_of_all_kinds, running)
def test_preemption_never_picks_an_equal_or_higher_class_and_makes_room(queue, busy):
    situation = cluster(8, runs=20, running=busy)
    made = decided(queue, situation)
    runs = {run.run_id: run for run in busy}
    jobs = {job.uid: job for job in queue}
    for preemption in made.preemptions:
        victim = runs[preemption.run_id]
        assert victim.may_stop
        assert not victim.stops
        assert victim.priority_class < class_of(jobs[preemption.uid].priority)
    for uid in {preemption.uid for preemption in made.preemptions}:
        room = situation.available.free
        for run in busy:
            gone = any(p.run_id == run.run_id for p in made.preemptions) or run.stops or run.ends_s is not None
            room = room.plus(run.resources) if gone else room
        assert jobs[uid].demand.fits(room), "nobody is stopped for nothing"


def _live_to_the_end(queue, situation, *, lasts_s: float, most_rounds: int) -> int:
    """Holds rounds a minute apart, with each start running for its time; the rounds that it took for all to have started."""
    waiting, ends, now_s = list(queue), [], situation.now_s
    for number in range(most_rounds):
        ends = [(end_s, run) for end_s, run in ends if end_s > now_s]
        busy = [run for _, run in ends]
        free = situation.capacity
        for run in busy:
            free = free.minus(run.resources)
        at = replace(situation, now_s=now_s, live=busy, available=replace(situation.available, free=free))
        made = decided(waiting, at, preempts_from=None)
        for start in made.starts:
            (member,) = start.pack.members
            ends.append((now_s + lasts_s, live(member.uid, member.demand.gpus, member.tenant, ends_s=None)))
        gone = set(started(made))
        waiting = [job for job in waiting if job.uid not in gone]
        if not waiting:
            return number
        now_s += 60
    raise AssertionError(f"{len(waiting)} still wait")


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([1, 1, 2, 4, 8]), min_size=1, max_size=30), st.sampled_from([60.0, 900.0]))
def test_everything_starts_in_the_end(sizes, lasts_s):
    queue = [wants(order, gpus, tenant=TENANTS[order % 3], priority=(-10, 0, 60)[order % 3]) for order, gpus in enumerate(sizes)]
    _live_to_the_end(queue, cluster(8), lasts_s=lasts_s, most_rounds=31 * 20 + 40)


def test_a_large_job_is_not_passed_for_ever_by_small_ones_whose_ends_nobody_knows():
    """With a stream of small jobs there are never 8 free GPUs at once, unless they are kept as they come free."""
    small = [live(f"run-{number}", 1) for number in range(7)]
    large, newer = wants(0, 8, submitted_s=NOW_S - 1000), wants(1, 1)
    assert started(decided([large, newer], cluster(8, running=small))) == ["job-1"], "nobody knows when 8 are free: it may pass"
    aged = replace(large, submitted_s=NOW_S - 1801)
    made = decided([aged, newer], cluster(8, running=small))
    assert started(made) == []
    assert reasons(made) == {"job-0": WaitReason.CLUSTER_FULL, "job-1": WaitReason.RESERVED}


def test_a_small_job_passes_only_if_the_large_one_keeps_its_date():
    busy = [live("run-1", 6, ends_s=NOW_S + 1000)]
    large = wants(0, 8)
    for lasts_s, passes in ((900.0, True), (1100.0, False), (math.inf, False)):
        made = decided([large, wants(1, 2, lasts_s=lasts_s)], cluster(8, running=busy))
        assert (started(made) == ["job-1"]) is passes, lasts_s


def test_what_the_large_one_leaves_over_may_be_taken_for_any_time():
    busy = [live("run-1", 6, ends_s=NOW_S + 1000)]
    assert started(decided([wants(0, 7), wants(1, 1), wants(2, 1)], cluster(8, running=busy))) == ["job-1"]


def test_workers_of_a_run_start_together_or_not_at_all():
    four = wants(0, 2)
    gang = replace(four, key=replace(four.key, warm=replace(four.key.warm, cluster=replace(four.key.warm.cluster, num_workers=4))))
    assert started(decided([gang], cluster(7))) == []
    assert started(decided([gang], cluster(8))) == ["job-0"]


def test_a_job_that_no_cluster_of_this_size_can_take_blocks_nobody_and_is_told():
    made = decided([wants(0, 16, submitted_s=0.0), wants(1, 1)], cluster(8))
    assert started(made) == ["job-1"]
    assert "needs 16 GPUs" in made.waits["job-0"].message
    assert "8 GPUs in all" in made.waits["job-0"].message


def test_a_tenant_at_its_quota_is_told_the_numbers_and_keeps_nobody_waiting():
    limits = {"acme": Quota(max_gpus=2), "blue": Quota(max_running_jobs=1)}
    queue = [wants(0, 1), wants(1, 1), wants(2, 1), wants(3, 1, tenant="blue"), wants(4, 1, tenant="blue"), wants(5, 1, tenant="coal")]
    made = decided(queue, cluster(8, quotas=limits))
    assert sorted(started(made)) == ["job-0", "job-1", "job-3", "job-5"]
    assert "of the 2 that it may use at once (limit max_gpus)" in made.waits["job-2"].message
    assert "1 job running at once (limit max_running_jobs)" in made.waits["job-4"].message


def test_a_pack_holds_no_more_of_a_tenant_than_its_quota():
    queue = [wants(order, 1, sharing=Sharing.TENANT) for order in range(6)]
    made = decided(queue, cluster(1, runs=1, quotas={"acme": Quota(max_running_jobs=4)}), PackLimits(max_pack_size=16))
    assert len(started(made)) == 4


def test_reserved_gpus_are_for_their_tenant_alone_while_the_window_lasts():
    kept = [Window(tenant="blue", gpus=6, start_s=NOW_S - 1, end_s=NOW_S + 100)]
    queue = [wants(order, 1, tenant="acme") for order in range(4)]
    made = decided(queue, cluster(8, windows=kept))
    assert len(started(made)) == 2
    assert set(reasons(made).values()) == {WaitReason.RESERVED}
    assert len(started(decided([wants(order, 1, tenant="blue") for order in range(8)], cluster(8, windows=kept)))) == 8
    using = [live("run-1", 6, "blue")]
    assert len(started(decided(queue, cluster(8, running=using, windows=kept)))) == 2, "what it uses already is not kept twice"


def test_a_job_that_ends_before_a_window_may_use_its_gpus():
    kept = [Window(tenant="blue", gpus=8, start_s=NOW_S + 1000, end_s=NOW_S + 5000)]
    assert started(decided([wants(0, 1, lasts_s=999.0)], cluster(8, windows=kept))) == ["job-0"]
    assert started(decided([wants(0, 1, lasts_s=1001.0)], cluster(8, windows=kept))) == []


def test_tenants_share_by_dominant_resource_and_weight():
    """9 CPUs and 18 GB for tenants of (1 CPU, 4 GB) and (3 CPUs, 1 GB): 3 and 2 jobs, the paper's example; GPUs stand for the GB."""
    first, second = wants(0, 4), wants(0, 1)
    wide = replace(second.key, warm=replace(second.key.warm, cluster=replace(second.key.warm.cluster, cpus_per_worker=3.0)))
    queue = [replace(first, uid=f"a{n}", tenant="acme", order=n) for n in range(10)]
    queue += [replace(second, uid=f"b{n}", tenant="blue", order=100 + n, key=wide) for n in range(10)]
    counts = Counter(uid[0] for uid in started(decided(queue, cluster(18, cpus=9.0))))
    assert counts == {"a": 3, "b": 2}


@given(st.integers(1, 4), st.integers(1, 4))
def test_shares_are_in_proportion_to_weights(left, right):
    queue = [wants(n, 1, uid=f"a{n}", tenant="acme") for n in range(60)] + [
        wants(100 + n, 1, uid=f"b{n}", tenant="blue") for n in range(60)
    ]
    situation = cluster(60, quotas={"acme": Quota(weight=left), "blue": Quota(weight=right)})
    counts = Counter(uid[0] for uid in started(decided(queue, situation)))
    assert abs(counts["a"] / left - counts["b"] / right) <= 1 / min(left, right) + 1e-9


def test_who_has_less_comes_first_within_a_class_and_a_class_before_all():
    busy = [live("run-1", 4, "acme")]
    queue = [wants(0, 1), wants(1, 1, tenant="blue"), wants(2, 1, priority=60), wants(3, 1, tenant="blue", priority=-1)]
    assert started(decided(queue, cluster(8, running=busy))) == ["job-2", "job-1", "job-0", "job-3"]


def test_no_class_waits_for_ever():
    old = wants(0, 8, priority=-50, submitted_s=NOW_S - 13 * 3600)
    queue = [old, *(wants(n, 8, priority=80) for n in range(1, 5))]
    assert started(decided(queue, cluster(8))) == ["job-0"]


def test_a_job_of_a_higher_class_takes_the_place_of_the_youngest_of_the_lowest():
    busy = [
        live("old-low", 4, may_stop=True, priority_class=PriorityClass.LOW, started_s=NOW_S - 900),
        live("new-low", 4, may_stop=True, priority_class=PriorityClass.LOW, started_s=NOW_S - 100),
        live("normal", 4, may_stop=True, priority_class=PriorityClass.NORMAL, started_s=NOW_S - 50),
    ]
    made = decided([wants(0, 4, priority=60)], cluster(12, running=busy))
    assert [preemption.run_id for preemption in made.preemptions] == ["new-low"]
    assert reasons(made) == {"job-0": WaitReason.PREEMPTING}
    leaving = [replace(run, stops=run.run_id == "new-low") for run in busy]
    assert decided([wants(0, 4, priority=60)], cluster(12, running=leaving)).preemptions == [], "room is being made already"
    assert decided([wants(0, 4, priority=40)], cluster(12, running=busy[2:])).preemptions == [], "not of an equal class"


def test_nobody_is_preempted_where_that_makes_no_room_or_one_does_not_want_it():
    small = [live("run-1", 2, may_stop=True, priority_class=PriorityClass.LOW), live("run-2", 6)]
    assert decided([wants(0, 4, priority=60)], cluster(8, running=small)).preemptions == []


def test_nobody_is_preempted_for_a_place_that_is_free_soon_anyway():
    """An overdue run counts as gone soon. It would give its place twice if it were also stopped, and the other run stays."""
    low = {"may_stop": True, "priority_class": PriorityClass.LOW}
    overdue, stays = live("overdue", 4, ends_s=NOW_S - 5, **low), live("stays", 4)
    small = [wants(n, 0, priority=-10) for n in range(1, 8)]
    made = decided([wants(0, 8, priority=60), *small], cluster(8, runs=20, running=[overdue, stays]))
    assert made.preemptions == []
    assert reasons(made)["job-0"] is WaitReason.CLUSTER_FULL
    ends_in_time, goes_on = live("ends", 4, ends_s=NOW_S + 100, **low), live("goes-on", 4, ends_s=NOW_S + 5000, **low)
    made = decided([wants(0, 8, priority=60)], cluster(8, running=[ends_in_time, goes_on]))
    assert [preemption.run_id for preemption in made.preemptions] == ["goes-on"], "the other is gone by then"


def test_a_preempted_run_gives_its_place_once_also_when_its_end_was_known():
    """Else the book has 16 of 12 GPUs from that end on: the second job gets a date that it cannot keep, and is kept GPUs for it."""
    busy = [live("low", 4, ends_s=NOW_S + 5000, may_stop=True, priority_class=PriorityClass.LOW), live("stays", 4)]
    made = decided([wants(0, 6, priority=60), wants(1, 6, priority=10), wants(2, 2, priority=-10)], cluster(12, running=busy))
    assert [preemption.run_id for preemption in made.preemptions] == ["low"]
    assert started(made) == ["job-2"]


def test_an_aged_job_queues_in_a_higher_class_but_takes_nobodys_place():
    busy = [live("run-1", 8, may_stop=True, priority_class=PriorityClass.NORMAL)]
    assert decided([wants(0, 8, submitted_s=0.0)], cluster(8, running=busy)).preemptions == []


def test_two_jobs_do_not_count_on_the_same_room():
    busy = [live(f"run-{n}", 4, may_stop=True, priority_class=PriorityClass.LOW, started_s=NOW_S - n) for n in range(2)]
    made = decided([wants(0, 4, priority=60), wants(1, 4, priority=60), wants(2, 4, priority=60)], cluster(8, running=busy))
    assert sorted((preemption.uid, preemption.run_id) for preemption in made.preemptions) == [("job-0", "run-0"), ("job-1", "run-1")]


def test_without_a_capacity_only_runs_limit():
    capacity = Limits(max_running_runs=2).capacity
    assert capacity == Resources(math.inf, math.inf, 2)
    made = decided(
        [wants(n, 16) for n in range(3)], replace(cluster(8), capacity=capacity, available=replace(cluster(8).available, free=capacity))
    )
    assert len(started(made)) == 2
    assert made.waits["job-2"].message == "waits for a free run: 2 of 2 at work (limit max_running_runs)"


def test_a_shared_run_counts_in_full_for_quotas_and_in_part_for_shares():
    shared = [live("run-1", 4, jobs={"acme": 3, "blue": 1})]
    assert {tenant: used.gpus for tenant, used in usage_of(shared).items()} == {"acme": 4, "blue": 4}
    assert shares_of(cluster(8, running=shared)) == pytest.approx({"acme": 0.375, "blue": 0.125})


def test_ten_thousand_jobs_are_decided_on_for_ten_times_the_work_of_a_thousand():
    """Work is calls of functions: it is the same on every machine, however busy."""
    work = {count: calls_to_decide_on(count) for count in (1_000, 10_000)}
    assert work[10_000] < 12 * work[1_000]


def calls_to_decide_on(num_jobs: int) -> int:
    queue = [
        wants(n, (1, 2, 4)[n % 3], tenant=f"t-{n % 50}", priority=(0, 0, 10, -10)[n % 4], sharing=Sharing.ANYONE) for n in range(num_jobs)
    ]
    busy = [live(f"run-{n}", 1, f"t-{n % 50}", ends_s=NOW_S + n) for n in range(200)]
    on = cluster(256, runs=300, running=busy)
    calls = count()
    sys.setprofile(lambda _frame, event, _argument: next(calls) if event in {"call", "c_call"} else None)
    try:
        made = decided(queue, on)
    finally:
        sys.setprofile(None)
    assert len(made.waiting) + len(started(made)) == num_jobs
    return next(calls)
