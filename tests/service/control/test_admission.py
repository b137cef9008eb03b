"""First come, first served, within the limit."""

from hypothesis import given
from hypothesis import strategies as st

from service.control.admission import Admit, Limits, QueuedJob, Wait, admit


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 10))
def test_never_more_runs_than_the_limit_and_never_fewer_than_fit(queued, live, limit):
    decisions = admit([QueuedJob(uid=str(place)) for place in range(queued)], live, Limits(max_running_runs=limit))
    admitted = [decision.uid for decision in decisions if isinstance(decision, Admit)]
    assert len(admitted) == min(queued, max(0, limit - live))
    assert admitted == [str(place) for place in range(len(admitted))], "oldest first"
    assert all("max_running_runs" in decision.message for decision in decisions if isinstance(decision, Wait))
