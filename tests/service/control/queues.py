"""Queues, clusters and what Hypothesis makes of them: what the tests of admission decide on."""

import math
from dataclasses import replace

from hypothesis import strategies as st

from service.control.admission import AdmissionPolicy, Decided, LiveRun, Situation, decide
from service.control.capacity import Resources
from service.control.capacity_profile import Window
from service.control.packing import Candidate, Packer, PackLimits, Sharing
from service.control.placing import AvailableCapacity
from service.control.priority import PriorityClass
from service.control.quotas import Quota
from tests.service.control.test_packing import KEY, job

NOW_S = 1_000_000.0
TENANTS = ("acme", "blue", "coal")


def wants(order: int, gpus: float = 1, **changes) -> Candidate:
    """A queued job of one worker with so many GPUs, which trains alone."""
    warm = replace(KEY.warm, cluster=replace(KEY.warm.cluster, gpus_per_worker=gpus))
    fields = {"key": replace(KEY, warm=warm), "sharing": Sharing.NOBODY, "submitted_s": NOW_S - 10 + order * 1e-3}
    return job(order, **{**fields, **changes})


def live(run_id: str, gpus: float = 1, tenant: str = "acme", **changes) -> LiveRun:
    fields = {"run_id": run_id, "resources": Resources(gpus, 1, 1), "jobs": {tenant: 1}, "started_s": NOW_S - 100}
    return LiveRun(**{**fields, **changes})


def cluster(gpus: float = 8, runs: int = 100, cpus: float = math.inf, *, running=(), quotas=None, windows=()) -> Situation:
    capacity = Resources(gpus, cpus, runs)
    free = capacity
    for run in running:
        free = free.minus(run.resources)
    return Situation(
        now_s=NOW_S, capacity=capacity, live=list(running), available=AvailableCapacity(free=free), quotas=quotas or {}, windows=windows
    )


def decided(queue, situation: Situation, limits: PackLimits | None = None, **rules) -> Decided:
    return decide(queue, Packer(queue, limits or PackLimits()), situation, AdmissionPolicy(**rules))


def started(made: Decided) -> list[str]:
    return [member.uid for start in made.starts for member in start.pack.members]


priorities = st.sampled_from([-10, 0, 0, 10, 60])
jobs_of_all_kinds = st.lists(
    st.fixed_dictionaries(
        {
            "gpus": st.sampled_from([0, 0.5, 1, 1, 2, 4, 8, 16]),
            "tenant": st.sampled_from(TENANTS),
            "priority": priorities,
            "lasts_s": st.sampled_from([60.0, 600.0, 86400.0, math.inf]),
            "sharing": st.sampled_from(Sharing),
            "submitted_s": st.sampled_from([NOW_S - 10, NOW_S - 2000, NOW_S - 8000, NOW_S - 100_000]),
        }
    ),
    max_size=25,
).map(lambda made: [wants(order, **fields) for order, fields in enumerate(made)])
quotas = st.dictionaries(
    st.sampled_from(TENANTS),
    st.builds(
        Quota,
        max_gpus=st.none() | st.sampled_from([0.0, 1.0, 3.0, 8.0]),
        max_running_jobs=st.none() | st.integers(0, 4),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
    ),
)
running = st.lists(
    st.fixed_dictionaries(
        {
            "gpus": st.sampled_from([1, 2, 4]),
            "tenant": st.sampled_from(TENANTS),
            "ends_s": st.none() | st.sampled_from([NOW_S - 5, NOW_S + 300, NOW_S + 5000]),
            "may_stop": st.booleans(),
            "stops": st.booleans(),
            "priority_class": st.sampled_from(PriorityClass),
            "started_s": st.sampled_from([NOW_S - 50, NOW_S - 500]),
        }
    ),
    max_size=6,
).map(lambda made: [live(f"run-{number}", **fields) for number, fields in enumerate(made)])
windows = st.lists(
    st.builds(
        Window,
        tenant=st.sampled_from(TENANTS),
        gpus=st.sampled_from([1.0, 4.0]),
        start_s=st.sampled_from([NOW_S - 100, NOW_S + 1000]),
        end_s=st.just(NOW_S + 5000),
    ),
    max_size=2,
)
