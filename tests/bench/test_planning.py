"""The bench of the planner: its queue is real work, its growth is what it says."""

import pytest

from bench import planning
from service.control.packing import plan


def test_its_queue_makes_packs_of_many_and_of_one():
    sizes = {len(pack.members) for pack in plan(planning.jobs(400), planning.LIMITS, planning.NUM_FREE_RUNS).packs}
    assert min(sizes) == 1
    assert max(sizes) > 4


def test_growth_tells_proportional_from_quadratic():
    assert planning.summary({1000: 1.0, 10_000: 10.0})["per_job_growth"] == pytest.approx(1)
    assert planning.summary({1000: 1.0, 10_000: 100.0})["per_job_growth"] == pytest.approx(10)
