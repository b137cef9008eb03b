"""Files of state: whole, private, and named when they are broken."""

import errno
import os
import stat
from pathlib import Path

import pytest

from lorafleet import state_files
from lorafleet.errors import FailedPrecondition, OperatorsFault, Unavailable


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_private_whatever_the_mask_and_the_file_before_it(tmp_path: Path):
    path = tmp_path / "port"
    path.write_text("1")
    path.chmod(0o666)
    before = os.umask(0)
    try:
        state_files.write(path, "7600")
        state_files.made_private(tmp_path / "new")
    finally:
        os.umask(before)
    assert (path.read_text(), mode_of(path), mode_of(tmp_path / "new")) == ("7600", 0o600, 0o600)


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "DISK_FULL"), (errno.EDQUOT, "DISK_FULL"), (errno.EROFS, "DISK_READ_ONLY")])
def test_what_cannot_be_written_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
):
    path = tmp_path / "head.json"
    state_files.write(path, "old")

    def fails(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OperatorsFault, match=f"{path} cannot be written") as refused:
        state_files.write(path, "new")
    assert refused.value.reason == reason
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("head.json", "old")]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: synced.append((tmp_path / "token").exists()))
    state_files.write(tmp_path / "token", "x")
    assert synced == [False, True], "the file before it is renamed, the folder after"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(Unavailable, match="absent/x cannot be written"):
        state_files.write(tmp_path / "absent" / "x", "")


def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path):
    path = tmp_path / "port"
    assert state_files.read(path, int) is None
    path.write_text("secret-that-others-wrote")
    with pytest.raises(FailedPrecondition, match=f"{path} is broken") as refused:
        state_files.read(path, int)
    assert refused.value.reason == "STATE_FILE_BROKEN"
    assert "secret" not in refused.value.message
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FailedPrecondition, match=f"{path} is broken"):
        state_files.read(path, str)
