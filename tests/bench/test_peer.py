"""The peer is timed by what it prints, and refused clearly when it cannot run."""

import sys
from pathlib import Path

import pytest

from bench import peer

PRINTS_LIKE_TQDM = """
import sys, time
steps = int(next(a for a in sys.argv if a.startswith("--max_train_steps=")).split("=")[1])
for step in range(steps + 1):
    print(f"\\rSteps:  {step}%|## | {step}/{steps} [00:00<00:01, lr=0.1, step_loss=0.2]", end="", file=sys.stderr, flush=True)
    time.sleep(0.01)
sys.exit({status})
"""


@pytest.fixture
def run(tmp_path: Path) -> peer.PeerRun:
    data = tmp_path / "data"
    data.mkdir()
    (data / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n' * 20)
    script = tmp_path / "script.py"
    script.write_text(PRINTS_LIKE_TQDM.replace("{status}", "0"))
    return peer.PeerRun(
        script=script,
        base_dir=tmp_path,
        data_dir=data,
        out_dir=tmp_path / "out",
        num_steps=14,
        batch_size=8,
        rank=4,
        learning_rate=1e-3,
        seed=0,
    )


@pytest.fixture(autouse=True)
def nothing_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "IMPORTS", ())


def test_start_up_ends_with_the_empty_bar_and_the_rate_counts_the_loop_alone(run: peer.PeerRun):
    result = peer.measure(run)
    assert 0 < result.start_up_seconds < result.wall_seconds
    assert result.pictures_per_second > 0


def test_short_batches_count_as_what_they_hold():
    reached = {step: float(step) for step in range(14)}  # one step a second
    # 20 pictures in batches of 8: 8, 8, 4, 8, 8, 4, ...; steps 11 to 13 are batches 10, 11, 12: 8, 4, 8
    assert peer.pictures_per_second(reached, num_pictures=20, batch_size=8) == pytest.approx(20 / 3)


def test_a_bar_is_seen_before_the_next_one_starts():
    assert peer.steps_shown(b"\rSteps:   5%|5  | 3/60 [00:01<00:20,  2.0it/s]") == [3]


def test_a_download_bar_is_not_a_step():
    assert peer.steps_shown(b"\rMap: 100%|###| 3/60 [00:01<00:20]\n") == []


def test_missing_script_says_where_to_get_it(run: peer.PeerRun):
    run.script.unlink()
    with pytest.raises(peer.PeerError, match=r"no such file; get .*PEER="):
        peer.measure(run)


def test_missing_package_is_named_before_the_run(run: peer.PeerRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peer, "IMPORTS", ("datasets_that_is_not_there",))
    with pytest.raises(peer.PeerError, match="pip install datasets_that_is_not_there"):
        peer.measure(run)


def test_a_used_out_dir_is_refused(run: peer.PeerRun):
    run.out_dir.mkdir()
    (run.out_dir / "cache").touch()
    with pytest.raises(peer.PeerError, match="not empty"):
        peer.measure(run)


def test_a_failing_peer_shows_its_last_words(run: peer.PeerRun):
    run.script.write_text("import sys; sys.exit('out of memory')")
    with pytest.raises(peer.PeerError, match="out of memory"):
        peer.measure(run)


def test_command_runs_the_script_unchanged(run: peer.PeerRun):
    assert peer.command(run)[:2] == [sys.executable, str(run.script)]
    assert "--train_batch_size=8" in peer.command(run)
