"""A run's store credentials count before those of its machine, whole: no part of one key goes with another."""

import os
from pathlib import Path

import pytest

from trainer import store_credentials


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "machine", "AWS_SECRET_ACCESS_KEY": "machines", "AWS_SESSION_TOKEN": "its"}.items():
        monkeypatch.setenv(name, value)


def test_a_key_without_session_leaves_none_of_the_machines(tmp_path: Path):
    file = tmp_path / "store-credentials"
    file.write_text('{"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "owns", "AWS_SESSION_TOKEN": ""}')
    store_credentials.adopt(store_credentials.given(str(file)))
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]) == ("own", "owns")
    assert "AWS_SESSION_TOKEN" not in os.environ


def test_what_comes_by_the_environment_is_cleared_likewise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")
    store_credentials.adopt(store_credentials.given(None))
    assert os.environ["AWS_ACCESS_KEY_ID"] == "machine"
    assert "AWS_SESSION_TOKEN" not in os.environ
