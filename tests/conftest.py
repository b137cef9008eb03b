"""What is slow to start, started once for the whole test run."""

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from examples.demo_store import start_minio
from examples.processes import Servers

os.environ.setdefault("LORAFLEET_STANDBY_WORKERS", "0")  # of every server that a test starts, unless it asks for some

settings.register_profile("untimed", deadline=None)  # else an example that takes 0.2 s on a busy machine fails
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tests print and log halves of surrogate pairs, as users' files hold them; pytest-xdist ends at the first that a report has."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real MinIO on loopback: the environment in which S3 clients reach it."""
    folder = tmp_path_factory.mktemp("minio")
    with Servers(folder) as servers:
        yield start_minio(servers, folder / "data")


@pytest.fixture
def s3(minio: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process sees the MinIO as its S3."""
    for name, value in minio.items():
        monkeypatch.setenv(name, value)
    return minio
