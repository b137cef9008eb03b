"""Workers that stand by come up when nothing else wants their place, and go when something does."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.spec import ClusterSpec
from service.control.capacity import Resources
from service.control.compatibility import StandbyKey, WarmKey
from service.control.standby import Begin, End, Moment, StandbyRules, StandbyWorkers, decide
from service.planning.planner import cluster_of

SHAPE = cluster_of(ClusterSpec())
LARGE = replace(SHAPE, cpus_per_worker=2.0)
RULES = StandbyRules(num_groups=1)
IDLE = Moment(idle_s=60.0, wanted=SHAPE, is_learned=False, free=Resources(0, 2, 1))
FULL = Resources(0, 1, 0)


def group(run_id: str = "run-1", **changes) -> StandbyWorkers:
    return replace(StandbyWorkers(run_id=run_id, shape=SHAPE), **changes)


def test_an_idle_place_gets_workers_that_stand_by():
    assert decide(IDLE, RULES) == Begin(shape=SHAPE)


@pytest.mark.parametrize(
    "why_not",
    [
        {"idle_s": None},
        {"idle_s": 1.0},
        {"free": FULL},
        {"free": Resources(0, 0.5, 1)},
        {"free": Resources(math.inf, math.inf, 4)},  # nobody could see that they must give way
        {"free": Resources(math.inf, 8, 4), "wanted": replace(SHAPE, gpus_per_worker=1.0)},
        {"free_memory_bytes": 2.0**30},
        {"retry_in_s": 30.0},
        {"groups": [group()]},
        {"groups": [group(leaves=True)]},
    ],
)
def test_none_comes_up(why_not: dict):
    assert decide(replace(IDLE, **why_not), RULES) is None


def test_none_is_wanted_and_what_is_left_ends():
    off = StandbyRules(num_groups=0)
    assert decide(IDLE, off) is None
    assert isinstance(decide(replace(IDLE, free=FULL, groups=[group()]), off), End)


def test_the_newest_of_too_many_ends():
    moment = replace(IDLE, free=FULL, groups=[group("run-1"), group("run-2")])
    assert decide(moment, RULES) == End(run_id="run-2", why="1 may stand by")


def test_a_group_makes_place_for_the_shape_that_jobs_ask_for_but_not_for_a_mere_default():
    moment = replace(IDLE, wanted=LARGE, free=FULL, groups=[group()])
    assert decide(moment, RULES) is None
    assert isinstance(decide(replace(moment, is_learned=True), RULES), End)
    assert decide(replace(moment, is_learned=True, idle_s=1.0), RULES) is None, "after an idle moment"


def test_a_group_that_does_not_come_up_ends():
    assert decide(replace(IDLE, free=FULL, groups=[group(starts_for_s=599.0)]), RULES) is None
    assert isinstance(decide(replace(IDLE, free=FULL, groups=[group(starts_for_s=600.0)]), RULES), End)


def test_while_jobs_wait_admission_alone_gives_places_away():
    assert decide(replace(IDLE, idle_s=None, groups=[group("a"), group("b")]), RULES) is None


def test_the_time_to_the_next_try_doubles_with_every_failure_and_has_an_end():
    assert [RULES.backoff_s(failures) for failures in (0, 1, 2, 3, 50)] == [0, 60, 120, 240, 3600]


@given(
    num_groups=st.integers(0, 4),
    runs=st.integers(0, 4),
    cpus=st.floats(0, 8),
    shapes=st.lists(st.sampled_from([SHAPE, LARGE]), max_size=4),
    idle_s=st.one_of(st.none(), st.floats(0, 100)),
    is_learned=st.booleans(),
)
def test_decisions_come_to_rest_within_what_is_free(num_groups, runs, cpus, shapes, idle_s, is_learned):
    """Applied one after the other they end, and never take more than there is, or than may stand by."""
    rules, free = StandbyRules(num_groups=num_groups), Resources(0, cpus, runs)
    groups = [group(f"run-{number}", shape=shape) for number, shape in enumerate(shapes)]
    for step in range(20):
        moment = Moment(idle_s=idle_s, wanted=SHAPE, is_learned=is_learned, groups=groups, free=free)
        match decide(moment, rules):
            case Begin(shape=shape):
                assert shape.resources.fits(free)
                free = free.minus(shape.resources)
                groups = [*groups, group(f"new-{step}", shape=shape)]
                assert len(groups) <= num_groups
            case End(run_id=run_id):
                [gone] = [each for each in groups if each.run_id == run_id]
                free = free.plus(gone.shape.resources)
                groups = [each for each in groups if each.run_id != run_id]
            case None:
                return
    raise AssertionError("it never comes to rest")


def test_workers_that_stand_by_take_jobs_and_no_other_work():
    wanted = WarmKey(base_uri="s3://bkt/base", family="sd1", precision="fp32", cluster=SHAPE)
    assert StandbyKey(cluster=SHAPE).serves(wanted)
    assert not StandbyKey(cluster=SHAPE).serves(replace(wanted, kind="generation"))
