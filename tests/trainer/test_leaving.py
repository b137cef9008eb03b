"""A pod that must go tells its trainer, and waits for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer import eviction

HOOK = [sys.executable, "-m", "trainer.eviction"]


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pod"
    monkeypatch.setenv("LORAFLEET_POD_DIR", str(folder))
    return folder


def hook() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(HOOK, env=os.environ.copy())


def until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_outside_of_pods_nothing_is_heard_and_nothing_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("LORAFLEET_POD_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    with eviction.at_work():
        assert not eviction.is_heard()
        assert not eviction.is_told()
    assert not list(tmp_path.iterdir())


def test_a_pod_where_nobody_is_at_work_goes_at_once(pod: Path):
    assert hook().wait(60) == 0


def test_the_hook_leaves_word_and_waits_until_the_work_is_saved(pod: Path):
    with eviction.at_work():
        assert not eviction.is_told()
        waiting = hook()
        until(eviction.is_told)
        time.sleep(2 * eviction.LOOK_EVERY_S)
        assert waiting.poll() is None
    assert waiting.wait(60) == 0


def test_a_trainer_that_was_killed_is_not_waited_for(pod: Path):
    script = "import time\nfrom trainer import leaving\nwith leaving.at_work(): print('in', flush=True); time.sleep(60)"
    trainer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    trainer.stdout.readline()
    waiting = hook()
    until(eviction.is_told)
    trainer.kill()
    trainer.wait()
    assert waiting.wait(60) == 0


def test_the_hook_begins_at_once(pod: Path):
    """Grace periods are short: it must not import what takes seconds."""
    told = "import sys, trainer.eviction; print(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    loaded = subprocess.run([sys.executable, "-S", "-c", told], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": os.getcwd()})
    assert loaded.stdout.strip() == "['__main__', 'lorafleet', 'trainer']" or "torch" not in loaded.stdout
