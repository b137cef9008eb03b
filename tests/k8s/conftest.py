"""One release for the whole run, installed by deploy/install.sh as anybody would, and taken away at the end.

`make test-k8s` sets LORAFLEET_TEST_K8S, once there is a cluster and it has the images; without it nothing here is collected.
LORAFLEET_TEST_K8S=keep leaves the release, and finds it again in the next run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:  # the tests that need no cluster are spared what these import
    from tests.k8s.fleet import Fleet
    from tests.k8s.release import Release

if "LORAFLEET_TEST_K8S" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


class InGroups(LoadScopeScheduling):
    """Tests that share the release run one after another, in one process; those that need none run beside them."""

    def _split_scope(self, nodeid: str) -> str:
        beside = ("tests/k8s/backend/", "tests/k8s/test_here.py")
        return next((path for path in beside if nodeid.startswith(path)), "release")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> InGroups:
    """In place of --dist loadgroup, which marks nothing with this pytest (9.2: an item's id is its own)."""
    return InGroups(config, log)


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    """The chart with dev.minio and dev.postgresql, and runs of the fast trainer."""
    from tests.k8s.release import Release

    release = Release.of(os.environ)
    keep = os.environ["LORAFLEET_TEST_K8S"] == "keep"
    if not (keep and release.is_there()):
        release.install()
    yield release
    if not keep:
        release.remove()


@pytest.fixture(scope="session")
def whole_fleet(release: Release) -> Iterator[Fleet]:
    from tests.k8s.fleet import Fleet

    with Fleet.open(release) as fleet:
        yield fleet


@pytest.fixture
def fleet(whole_fleet: Fleet) -> Iterator[Fleet]:
    """Jobs that a failed test leaves are cancelled, so that the next finds an empty cluster."""
    yield whole_fleet
    whole_fleet.clear()
