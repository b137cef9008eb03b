"""The harness of `make chaos` notices what goes wrong in the registry: each check is shown records in which its promise is broken."""

from dataclasses import replace

import pytest

from bench.chaos.registry import Shelves, doubled, lost

FOX = "tenants/acme/adapters/fox"
ONE, TWO = "tenants/acme/jobs/one", "tenants/acme/jobs/two"
GOOD = Shelves(versions=[(FOX, 1, ONE), (FOX, 2, TWO)], moves={FOX: [(0, 1), (1, 2)]}, aliases={FOX: 2})
STATES = {ONE: "SUCCEEDED", TWO: "SUCCEEDED", "tenants/acme/jobs/gone": "CANCELLED"}


def test_good_records_say_nothing():
    assert lost(GOOD, STATES, {FOX: [(1, 2)]}) == doubled(GOOD, STATES) == []


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (replace(GOOD, versions=GOOD.versions[:1]), f"{TWO} has SUCCEEDED and is no version"),
        (replace(GOOD, versions=[(FOX, 1, ONE), (FOX, 3, TWO)]), f"{FOX} has the versions [1, 3]"),
        (replace(GOOD, moves={FOX: [(0, 1)]}), f"{FOX}: (1, 2) was answered and is not in the log"),
    ],
)
def test_what_is_lost_is_told(broken: Shelves, says: str):
    assert lost(broken, STATES, {FOX: [(1, 2)]}) == [says]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (replace(GOOD, versions=[*GOOD.versions, (FOX, 3, ONE)]), f"{ONE} is 2 versions"),
        (replace(GOOD, versions=[*GOOD.versions, (FOX, 3, "tenants/acme/jobs/gone")]), "tenants/acme/jobs/gone is CANCELLED and a version"),
        (replace(GOOD, moves={FOX: [(0, 1), (0, 2)]}), f"{FOX}: (0, 1) and then (0, 2)"),
        (replace(GOOD, aliases={FOX: 1}), f"{FOX}: the alias points to 1, and was moved to 2"),
    ],
)
def test_what_happened_twice_is_told(broken: Shelves, says: str):
    assert doubled(broken, STATES) == [says]
