"""Packs: every job once, no mixed company, nothing too large, first come first served."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from service.control.compatibility import Cluster, PackKey, WarmKey
from service.control.memory import GIB, PROCESS_BYTES, Footprint
from service.control.packing import Candidate, ClosedBy, PackLimits, Sharing, fits, may_share, memory_limit_bytes, plan

CLUSTER = Cluster(num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0, memory_gib_per_worker=None, zero_stage=0, offload="none")
KEY = PackKey(
    warm=WarmKey(base_uri="file:///base", family="sd1", precision="fp32", cluster=CLUSTER),
    resolution=512,
    bucketing=True,
    accumulation_steps=1,
)
KEYS = [KEY, replace(KEY, clip_skip=1), replace(KEY, resolution=256), replace(KEY, accumulation_steps=2)]


def foot(own_gib: float = 0.5, bank: str = "lora") -> Footprint:
    return Footprint(base_bytes=GIB, num_adapter_params=0, adapter_bytes=0, activation_bytes=int(own_gib * GIB), num_rows=1, bank=bank)


def job(order: int, **changes) -> Candidate:
    fields = {"uid": f"job-{order}", "tenant": "acme", "key": KEY, "sharing": Sharing.TENANT, "max_steps": 100, "footprint": foot()}
    return Candidate(**{**fields, "order": order, **changes})


def uids(plan_of_jobs) -> list[list[str]]:
    return [[member.uid for member in pack.members] for pack in plan_of_jobs.packs]


_jobs = st.lists(
    st.fixed_dictionaries(
        {
            "tenant": st.sampled_from(["acme", "blue", "coal"]),
            "key": st.sampled_from(KEYS),
            "sharing": st.sampled_from(Sharing),
            "max_steps": st.integers(1, 300),
            "footprint": st.none() | st.builds(foot, st.floats(0, 6), st.sampled_from(["lora", "loha", "oft"])),
            "priority": st.integers(-2, 2),
            "alone": st.sampled_from(["", "", "", "cluster.zero_stage is 1"]),
        }
    ),
    max_size=40,
).map(lambda found: [job(order, **fields) for order, fields in enumerate(found)])
_limits = st.builds(PackLimits, max_pack_size=st.integers(1, 6), worker_memory_bytes=st.none() | st.integers(3 * GIB, 9 * GIB))
_free = st.integers(1, 5)


@given(_jobs, _limits, _free)
def test_every_job_is_in_exactly_one_pack_or_refused(jobs, limits, free):
    made = plan(jobs, limits, free)
    found = Counter(uid for pack in uids(made) for uid in pack) + Counter(refusal.uid for refusal in made.refusals)
    assert found == Counter(each.uid for each in jobs)


@given(_jobs, _limits, _free)
def test_no_pack_mixes_breaks_sharing_or_exceeds(jobs, limits, free):
    for pack in plan(jobs, limits, free).packs:
        members = pack.members
        assert len({member.key for member in members}) == 1
        assert may_share([(member.tenant, member.sharing) for member in members])
        assert len(members) == 1 or not any(member.alone or member.sharing is Sharing.NOBODY for member in members)
        assert len(members) <= limits.max_pack_size
        assert fits(members, limits)
        limit = memory_limit_bytes(pack.key, limits)
        assert pack.footprints is None or limit is None or pack.memory_bytes <= limit


@given(_jobs, _limits, _free, st.randoms())
def test_the_same_jobs_make_the_same_plan_in_whatever_order_they_come(jobs, limits, free, random):
    shuffled = random.sample(jobs, len(jobs))
    assert uids(plan(shuffled, limits, free)) == uids(plan(jobs, limits, free))


@given(_jobs, _limits, _free)
def test_packs_start_in_the_order_of_priority_then_age(jobs, limits, free):
    leaders = [pack.members[0] for pack in plan(jobs, limits, free).packs]
    assert [leader.rank for leader in leaders] == sorted(leader.rank for leader in leaders)
    assert all(member.rank > pack.members[0].rank for pack in plan(jobs, limits, free).packs for member in pack.members[1:])


@settings(max_examples=50)
@given(_jobs, _jobs, _limits, _free)
def test_younger_jobs_never_push_a_job_behind_more_packs_than_jobs_came_before_it(jobs, younger, limits, free):
    later = [replace(each, uid=f"late-{each.uid}", order=1000 + each.order, priority=-2) for each in younger]
    made = plan([*jobs, *later], limits, free)
    before = {each.uid: place for place, each in enumerate(sorted(jobs, key=lambda each: each.rank))}
    for place, pack in enumerate(made.packs):
        assert all(place <= before[member.uid] for member in pack.members if member.uid in before)


def test_styles_are_spread_over_free_runs():
    made = plan([job(order) for order in range(20)], PackLimits(max_pack_size=16), 4)
    assert [len(pack.members) for pack in made.packs] == [5, 5, 5, 5]


def test_what_must_wait_for_a_run_is_filled_up():
    made = plan([job(order) for order in range(70)], PackLimits(max_pack_size=16), 2)
    assert [len(pack.members) for pack in made.packs] == [16, 16, 16, 16, 6]
    assert [pack.closed_by for pack in made.packs] == [ClosedBy.FULL] * 4 + [ClosedBy.NO_MORE_ITEMS]


def test_the_first_takes_those_with_the_nearest_number_of_steps():
    steps = [100, 900, 110, 905, 90, 910]
    made = plan([job(order, max_steps=count) for order, count in enumerate(steps)], PackLimits(max_pack_size=3), 1)
    assert [sorted(member.max_steps for member in pack.members) for pack in made.packs] == [[90, 100, 110], [900, 905, 910]]


def test_priority_goes_before_age_and_room_left_is_filled_from_below():
    made = plan([job(0), job(1, priority=5), job(2, priority=5)], PackLimits(max_pack_size=3), 1)
    assert uids(made) == [["job-1", "job-2", "job-0"]]


def test_a_job_that_fits_no_worker_is_refused_with_the_arithmetic():
    made = plan([job(0, footprint=foot(5)), job(1)], PackLimits(worker_memory_bytes=3 * GIB), 1)
    assert uids(made) == [["job-1"]]
    told = made.refusals[0].message
    assert "base 1.0 GiB" in told
    assert "= 6.9 GiB, but a worker has 3.0 GiB" in told
    assert "training.gradient_checkpointing, or a smaller micro_batch_size" in told


def test_a_job_that_recomputes_already_is_not_told_to():
    made = plan([job(0, footprint=foot(5), key=replace(KEY, recomputes=True))], PackLimits(worker_memory_bytes=3 * GIB), 1)
    assert "training.gradient_checkpointing" not in made.refusals[0].message


def test_memory_closes_a_pack_and_says_so():
    limit = PROCESS_BYTES + 2 * GIB
    made = plan([job(order) for order in range(5)], PackLimits(worker_memory_bytes=limit), 1)
    assert [len(pack.members) for pack in made.packs] == [2, 2, 1]
    assert [pack.closed_by for pack in made.packs] == [ClosedBy.MEMORY, ClosedBy.MEMORY, ClosedBy.NO_MORE_ITEMS]


def test_styles_alone_in_their_banks_leave_room_for_their_idle_rows():
    """Four of half a GiB fit where they are of one method; of two methods two and two do, and of four methods two."""
    limits = PackLimits(worker_memory_bytes=PROCESS_BYTES + 3 * GIB)
    sizes = [
        [len(pack.members) for pack in plan([job(order, footprint=foot(bank=bank)) for order, bank in enumerate(banks)], limits, 1).packs]
        for banks in ("aaaa", "abab", "abcd", "abca")
    ]
    assert sizes == [[4], [4], [2, 2], [3, 1]]


def test_one_too_large_does_not_keep_others_out():
    jobs = [job(0), job(1, footprint=foot(1.9)), job(2), job(3)]
    made = plan(jobs, PackLimits(worker_memory_bytes=PROCESS_BYTES + 3 * GIB), 1)
    assert sorted(sorted(pack) for pack in uids(made)) == [["job-0", "job-2", "job-3"], ["job-1"]]


def test_what_a_spec_reserves_is_a_limit_too():
    small = replace(KEY, warm=replace(KEY.warm, cluster=replace(CLUSTER, memory_gib_per_worker=2.0)))
    assert memory_limit_bytes(small, PackLimits()) == 2 * GIB
    assert memory_limit_bytes(small, PackLimits(worker_memory_bytes=GIB)) == GIB


def test_a_tenant_that_shares_with_its_own_takes_its_open_jobs_too():
    jobs = [job(0), job(1, sharing=Sharing.ANYONE), job(2, tenant="blue", sharing=Sharing.ANYONE)]
    made = plan(jobs, PackLimits(), 1)
    assert uids(made) == [["job-0", "job-1"], ["job-2"]]
    assert made.packs[0].closed_by is ClosedBy.SHARING


def test_open_jobs_of_all_tenants_train_together():
    jobs = [job(order, tenant=f"t{order}", sharing=Sharing.ANYONE) for order in range(4)]
    assert uids(plan(jobs, PackLimits(), 1)) == [["job-0", "job-1", "job-2", "job-3"]]


def test_unknown_shapes_leave_only_the_number():
    made = plan([job(order, footprint=None) for order in range(5)], PackLimits(max_pack_size=4, worker_memory_bytes=GIB), 1)
    assert [len(pack.members) for pack in made.packs] == [4, 1]
    assert "could not be read" in made.packs[0].arithmetic
    assert made.packs[0].memory_bytes == 0


def test_the_base_counts_though_the_leader_says_nothing_of_it():
    """Shapes may be unknown for some jobs of a base alone: its headers could not be read for a while."""
    unknown, *known = job(0, footprint=None), *(job(order, footprint=foot(1.5)) for order in range(1, 4))
    limits = PackLimits(worker_memory_bytes=PROCESS_BYTES + GIB + 3 * GIB)
    packs = plan([unknown, *known], limits, 1).packs
    assert [len(pack.members) for pack in packs] == [3, 1]
    assert all(fits(pack.members, limits) for pack in packs)
