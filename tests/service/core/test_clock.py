"""A step of the time of day is told from time that passes, and from a clock that is slewed."""

from datetime import UTC, datetime, timedelta

from service.core.clock import STEP_S, StepWatch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NONE = timedelta(0)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_time_that_passes_is_no_step():
    watch = StepWatch()
    assert [watch.look(after(at_s), at_s) for at_s in (0.0, 1.0, 3600.0)] == [NONE, NONE, NONE]


def test_a_clock_that_is_set_steps_in_both_directions():
    for step_s in (70.0, -70.0, 86_400.0):
        watch = StepWatch()
        watch.look(NOW, 0.0)
        assert watch.look(after(1 + step_s), 1.0) == timedelta(seconds=step_s)


def test_it_is_said_until_it_is_carried_over_and_the_next_one_then():
    watch = StepWatch()
    watch.look(NOW, 0.0)
    assert [watch.look(after(1 + 70), 1.0), watch.look(after(2 + 70), 2.0)] == [timedelta(seconds=70)] * 2
    carried = timedelta(seconds=70)
    assert watch.look(after(3 + 70) - carried, 3.0) == NONE
    assert watch.look(after(4 + 140) - carried, 4.0) == timedelta(seconds=70)


def test_small_steps_add_up():
    watch = StepWatch()
    told = [watch.look(after(at_s * 4.0), at_s) for at_s in (0.0, 1.0, 2.0, 3.0)]
    assert told[:2] == [NONE, NONE]
    assert told[3] > timedelta(seconds=STEP_S)


def test_a_clock_that_ntp_slews_is_followed():
    watch = StepWatch()
    slewed = 1.0005  # NTP's most
    assert all(watch.look(after(at_s * slewed), at_s) == NONE for at_s in map(float, range(0, 1_000_000, 5)))


def test_readings_that_may_be_apart_tell_no_step_of_that_size():
    """This process stood still between the two."""
    watch = StepWatch()
    watch.look(NOW, 0.0)
    assert watch.look(after(1.0), 31.0, uncertain_s=30.0) == NONE
    assert watch.look(after(32.0), 32.0) == NONE
