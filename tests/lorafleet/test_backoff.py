"""Waits grow with each failure, and never beyond their bound."""

import pytest

from lorafleet.backoff import doubled_s, spread_s


def test_waits_double_up_to_their_bound():
    assert [doubled_s(5, 60, failures) for failures in range(6)] == [5, 10, 20, 40, 60, 60]


@pytest.mark.parametrize("failures", [31, 1024, 10**9])
def test_failures_without_end_cost_no_more_than_the_bound(failures: int):
    assert doubled_s(0.5, 30, failures) == 30


def test_a_spread_wait_is_at_least_half_as_long():
    assert all(1 <= spread_s(2) <= 2 for _ in range(100))
