"""Times: spread as their densities say, shifted and kept within a range as published; held-out ones evenly over the same range."""

from math import sqrt

import numpy as np
import pytest

from lorafleet.spec import ObjectiveSpec
from trainer.keyed import Key, Purpose
from trainer.objectives.times import LEAST_SHARE, TimeShares, constant, cubic, logit_normal, logit_normal_of, uniform

KEY = Key(5, "style")
SHAPE = (4, 8, 8)


def drawn(shares: TimeShares, number: int = 4000) -> np.ndarray:
    return np.array([shares.drawn(KEY.generator(Purpose.TIMESTEP, index), SHAPE) for index in range(number)])


def phi(x: float) -> float:
    from math import erf

    return (1 + erf(x / sqrt(2))) / 2


@pytest.mark.parametrize("at", [0.1, 0.25, 0.5, 0.9])
def test_cubic_times_are_mostly_noise(at: float):
    """Of 1 - u^3 the share below t is 1 - (1 - t)^(1/3)."""
    assert (drawn(TimeShares(cubic)) < at).mean() == pytest.approx(1 - (1 - at) ** (1 / 3), abs=0.02)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.0, 1.0), (-0.5, 0.3)])
def test_logit_normal_times_have_their_mean_and_deviation(mean: float, deviation: float):
    shares = drawn(TimeShares(logit_normal_of(mean, deviation)))
    for at in (0.3, 0.5, 0.8):
        assert (shares < at).mean() == pytest.approx(phi((np.log(at / (1 - at)) - mean) / deviation), abs=0.03)


def test_the_standard_logit_normal_is_the_one_without_words():
    assert drawn(TimeShares(logit_normal_of(0.0, 1.0)), 50) == pytest.approx(drawn(TimeShares(logit_normal), 50))


def test_a_shift_moves_every_time_towards_noise():
    plain, shifted = drawn(TimeShares(), 200), drawn(TimeShares(shift=constant(3.0)), 200)
    assert shifted == pytest.approx(3 * plain / (1 + 2 * plain))


def test_a_range_holds_every_time_and_its_held_out_ones():
    shares = TimeShares(least=0.25, most=0.75)
    assert drawn(shares) == pytest.approx(0.25 + 0.5 * drawn(TimeShares()))
    assert shares.spread(2) == [0.375, 0.625]


def test_no_drawn_time_is_without_noise():
    assert min(TimeShares(lambda generator: 0.0).drawn(KEY.generator(Purpose.TIMESTEP), SHAPE) for _ in range(3)) == LEAST_SHARE


def test_a_spec_stands_in_for_the_familys_own():
    own = TimeShares.of(ObjectiveSpec(), logit_normal, constant(3.0))
    assert (own.density, own.shift(SHAPE)) == (logit_normal, 3.0)
    asked = TimeShares.of(ObjectiveSpec(time_density="uniform", time_shift=1.5, min_time=0.2), logit_normal, constant(3.0))
    assert (asked.density, asked.shift(SHAPE), asked.least, asked.most) == (uniform, 1.5, 0.2, 1.0)
