"""Waiting for a server: long enough, spread out, and not for ever."""

import pytest

from lorafleet.errors import DeadlineExceeded, LorafleetError, NotFound, RateLimited, Unavailable
from lorafleet.transport.retry import Deadline, Tries
from tests.lorafleet.conftest import FakeTime


def _pause(time: FakeTime, tries: Tries, error: LorafleetError) -> None:
    time.sleep(tries.delay_after(error))


def test_waits_double_up_to_the_longest(time: FakeTime) -> None:
    tries = Tries(time.patience(total_s=1000))
    for _ in range(7):
        _pause(time, tries, Unavailable("away"))
    assert time.slept_s == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_gives_up_with_the_last_error_once_patience_has_run_out(time: FakeTime) -> None:
    tries = Tries(time.patience(total_s=1.0))

    def try_for_ever() -> None:
        while True:
            _pause(time, tries, Unavailable("away"))

    with pytest.raises(Unavailable, match="away"):
        try_for_ever()
    assert sum(time.slept_s) == pytest.approx(1.0)


def test_answer_makes_patience_whole_again(time: FakeTime) -> None:
    tries = Tries(time.patience(total_s=1.0))
    for _ in range(50):
        _pause(time, tries, Unavailable("away"))
        tries.succeeded()
    assert time.slept_s == [0.2] * 50


def test_error_that_trying_again_cannot_mend_is_raised_at_once(time: FakeTime) -> None:
    with pytest.raises(NotFound):
        _pause(time, Tries(time.patience()), NotFound("no such job"))
    assert time.slept_s == []


def test_delay_that_the_server_asks_for_comes_before_ours(time: FakeTime) -> None:
    tries = Tries(time.patience())
    _pause(time, tries, RateLimited("too many calls", retry_delay_s=3.0))
    _pause(time, tries, Unavailable("away"))
    assert time.slept_s == [3.2, 0.4]


def test_delay_that_outlasts_patience_is_not_begun(time: FakeTime) -> None:
    with pytest.raises(RateLimited):
        _pause(time, Tries(time.patience(total_s=10)), RateLimited("too many calls", retry_delay_s=10.0))
    assert time.slept_s == []


def test_the_earlier_of_two_deadlines_holds(time: FakeTime) -> None:
    outer = Deadline(now=time.now).or_after(10)
    inner = outer.or_after(60)
    time.sleep(4)
    assert inner.cut(None) == 6
    assert inner.cut(5) == 5
    assert outer.or_after(1).cut(5) == 1
    inner.check()
    time.sleep(6)
    with pytest.raises(DeadlineExceeded, match="away"):
        inner.check(Unavailable("away"))


def test_no_deadline_is_for_ever(time: FakeTime) -> None:
    time.sleep(1e9)
    Deadline(now=time.now).check()
    assert Deadline(now=time.now).cut(None) is None
