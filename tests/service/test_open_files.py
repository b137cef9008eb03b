"""A server may open as many files as it is allowed: connections of strangers are files too."""

import resource
from collections.abc import Iterator

import pytest

from service.server.serving import MANY_FILES, _allow_many_files


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """The usual limits, restored afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_server_may_open_as_many_files_as_it_is_allowed(limits: tuple[int, int]):
    soft, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    _allow_many_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(MANY_FILES, hard), hard)


def test_a_limit_that_is_higher_stays(limits: tuple[int, int]):
    _allow_many_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= limits[0]
