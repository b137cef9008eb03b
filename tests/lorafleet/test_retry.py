"""Waiting for a server: long enough, spread out, and not for ever."""

import pytest

from lorafleet.errors import NotFound, RateLimited, Unavailable
from lorafleet.retry import Tries
from tests.lorafleet.conftest import FakeTime


def test_waits_double_up_to_the_longest(time: FakeTime) -> None:
    tries = Tries(time.patience(total_s=1000))
    for _ in range(7):
        tries.pause_after(Unavailable("away"))
    assert time.slept_s == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_gives_up_with_the_last_error_once_patience_has_run_out(time: FakeTime) -> None:
    tries = Tries(time.patience(total_s=1.0))

    def try_for_ever() -> None:
        while True:
            tries.pause_after(Unavailable("away"))

    with pytest.raises(Unavailable, match="away"):
        try_for_ever()
    assert sum(time.slept_s) == pytest.approx(1.0)


def test_answer_makes_patience_whole_again(time: FakeTime) -> None:
    tries = Tries(time.patience(total_s=1.0))
    for _ in range(50):
        tries.pause_after(Unavailable("away"))
        tries.succeeded()
    assert time.slept_s == [0.2] * 50


def test_error_that_trying_again_cannot_mend_is_raised_at_once(time: FakeTime) -> None:
    with pytest.raises(NotFound):
        Tries(time.patience()).pause_after(NotFound("no such job"))
    assert time.slept_s == []


def test_delay_that_the_server_asks_for_comes_before_ours(time: FakeTime) -> None:
    tries = Tries(time.patience())
    tries.pause_after(RateLimited("too many calls", retry_delay_s=3.0))
    tries.pause_after(Unavailable("away"))
    assert time.slept_s == [3.2, 0.4]


def test_delay_that_outlasts_patience_is_not_begun(time: FakeTime) -> None:
    with pytest.raises(RateLimited):
        Tries(time.patience(total_s=10)).pause_after(RateLimited("too many calls", retry_delay_s=10.0))
    assert time.slept_s == []
