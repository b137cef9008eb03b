"""A rule of retention deletes what is neither new, nor young, nor pointed to, and says when age alone will delete more."""

from datetime import UTC, datetime, timedelta

import pytest

from service.control.retention import KeptVersion, Rule, judge

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def versions(*ages_days: float, aliased: tuple[int, ...] = ()) -> list[KeptVersion]:
    """Numbered from 1, the oldest, on."""
    return [
        KeptVersion(number=number, create_time=NOW - timedelta(days=age), has_alias=number in aliased)
        for number, age in enumerate(ages_days, start=1)
    ]


@pytest.mark.parametrize(
    ("rule", "aliased", "deleted"),
    [
        (Rule(), (), ()),
        (Rule(keep_newest=2), (), (1, 2, 3)),
        (Rule(keep_newest=9), (), ()),
        (Rule(keep_days=15), (), (1, 2)),
        (Rule(keep_days=20), (), (1, 2)),  # of the very age
        (Rule(keep_days=1), (), (1, 2, 3, 4)),  # the newest stays at any age
        (Rule(keep_newest=2, keep_days=15), (), (1, 2)),
        (Rule(keep_newest=2), (1, 3), (2,)),
        (Rule(keep_newest=1), (1, 2, 3, 4, 5), ()),
    ],
)
def test_what_is_neither_new_nor_young_nor_pointed_to_goes(rule: Rule, aliased: tuple[int, ...], deleted: tuple[int, ...]):
    assert sorted(judge(rule, versions(30, 20, 10, 5, 2, aliased=aliased), NOW).deleted) == sorted(deleted)


def test_it_is_asked_again_when_the_next_one_is_old_enough():
    assert judge(Rule(keep_days=15), versions(30, 10, 5, 1), NOW).again_at == NOW + timedelta(days=5)
    assert judge(Rule(keep_newest=2), versions(30, 10, 5), NOW).again_at is None
    assert judge(Rule(keep_days=15), [], NOW).again_at is None
