"""A folder of a worker's own: gone when it ends in order, and swept up after it when it was killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainer import scratch
from trainer.scratch import Scratch

PREFIX = "lorafleet-metrics-"
HOLDS = f"from trainer.scratch import Scratch\nkept = Scratch({PREFIX!r})\nprint(kept.path, flush=True)\ninput()"


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_next_start_removes_what_a_killed_process_left_and_nothing_of_a_living_one(temp: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS], env=os.environ | {"TMPDIR": str(temp)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        theirs = Path(holder.stdout.readline().strip())
        assert theirs.parent == temp
        (theirs / "events").write_text("x")
        ours = Scratch(PREFIX)
        assert theirs.exists(), "it lives"
        holder.send_signal(signal.SIGKILL)
    second = Scratch(PREFIX)
    assert not theirs.exists()
    assert ours.path.exists()
    ours.remove()
    second.remove()
    assert list(temp.iterdir()) == []


def test_only_folders_of_that_name_are_swept_up_and_no_link_is_followed(temp: Path):
    kept = temp / "other"
    kept.mkdir()
    (temp / f"{PREFIX}link").symlink_to(kept)
    (temp / f"{PREFIX}file").write_text("x")
    Scratch(PREFIX).remove()
    assert sorted(path.name for path in temp.iterdir()) == [f"{PREFIX}file", f"{PREFIX}link", "other"]


def test_one_that_is_swept_up_before_it_is_locked_is_made_again(temp: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[str] = []
    mkdtemp = tempfile.mkdtemp

    def taken(prefix: str) -> str:
        path = mkdtemp(prefix=prefix)
        if not made:
            Path(path).rmdir()
        made.append(path)
        return path

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", taken)
    ours = Scratch(PREFIX)
    assert len(made) == 2
    assert ours.path.exists()
