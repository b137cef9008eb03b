"""Checkpoints: whole or not there, the newest few kept, nothing but the trainable state in them."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from lorafleet.errors import RunFailed
from trainer import checkpoint
from trainer.checkpoint import Checkpoint, Progress
from trainer.storage import Folder

JOB = "tenants/acme/jobs/one"


def saved(step: int) -> Checkpoint:
    progress = Progress(step=step, losses=((1, 0.5), (2, 0.25)), held_out_losses=((0, 0.3),))
    return Checkpoint(
        progress, {"unet.a.lora_A.weight": torch.full((2, 2), float(step))}, {"exp_avg.unet.a.lora_A.weight": torch.ones(2, 2)}
    )


def test_it_comes_back_as_it_was(tmp_path: Path):
    folder = Folder(f"file://{tmp_path}")
    checkpoint.write(folder, saved(5), job=JOB, keep=2)
    back = checkpoint.newest(folder, job=JOB)
    assert back is not None
    assert back.progress == saved(5).progress
    assert torch.equal(back.weights["unet.a.lora_A.weight"], torch.full((2, 2), 5.0))
    assert set(back.moments) == {"exp_avg.unet.a.lora_A.weight"}


def test_the_newest_few_are_kept(tmp_path: Path):
    folder = Folder(f"file://{tmp_path}")
    for step in (1, 2, 3, 10):
        checkpoint.write(folder, saved(step), job=JOB, keep=2)
    assert {path.name for path in tmp_path.iterdir() if any(path.iterdir())} == {"step-00000003", "step-00000010"}
    assert checkpoint.newest_step(folder) == 10


def test_one_without_its_manifest_does_not_exist(tmp_path: Path):
    folder = Folder(f"file://{tmp_path}")
    checkpoint.write(folder, saved(1), job=JOB, keep=2)
    checkpoint.write(folder, saved(2), job=JOB, keep=2)
    (tmp_path / "step-00000002" / "manifest.json").unlink()
    back = checkpoint.newest(folder, job=JOB)
    assert back is not None
    assert back.progress.step == 1


@pytest.mark.parametrize("step", [2, 3])
def test_a_write_that_breaks_off_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int):
    """Also of a step that was saved before: a resumed run writes it again."""
    folder = Folder(f"file://{tmp_path}")
    checkpoint.write(folder, saved(1), job=JOB, keep=3)
    checkpoint.write(folder, saved(2), job=JOB, keep=3)

    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write_all", broken_off)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.write(folder, saved(step), job=JOB, keep=3)
    assert checkpoint.newest_step(folder) == step - 1
    assert not (tmp_path / f"step-{step:08d}" / "manifest.json").exists()


def test_a_damaged_one_is_passed_over(tmp_path: Path):
    folder = Folder(f"file://{tmp_path}")
    checkpoint.write(folder, saved(1), job=JOB, keep=2)
    checkpoint.write(folder, saved(2), job=JOB, keep=2)
    (tmp_path / "step-00000002" / "adapter.safetensors").write_bytes(b"half")
    back = checkpoint.newest(folder, job=JOB)
    assert back is not None
    assert back.progress.step == 1


def test_checkpoints_of_earlier_releases_load(tmp_path: Path):
    """Golden: the files of format 1, byte for byte as they were written."""
    golden = Path(__file__).parent / "golden" / "checkpoint-1"
    back = checkpoint.newest(Folder(f"file://{golden}"), job=JOB)
    assert back is not None
    assert back.progress == Progress(step=5, losses=((1, 0.5), (2, 0.25)), held_out_losses=((0, 0.3),))
    assert json.loads((golden / "step-00000005" / "manifest.json").read_text())["format"] == "lorafleet-checkpoint-1"


def test_another_jobs_checkpoint_is_refused(tmp_path: Path):
    folder = Folder(f"file://{tmp_path}")
    checkpoint.write(folder, saved(1), job=JOB, keep=2)
    with pytest.raises(RunFailed, match="is of another job's checkpoint; choose another") as caught:
        checkpoint.newest(folder, job="tenants/acme/jobs/two")
    assert caught.value.reason == "OUTPUT_TAKEN"
    assert "jobs/one" not in caught.value.message, "whose it is, is not the other's to know"


WORD = "another-tenants-word"
FOREIGN = {
    "another's": {"job": WORD},
    "a job that is no name": {"job": {WORD: 1}},
    "other files": {"files": {WORD: "0"}},
    "one more file": {"files": {f"../{WORD}": "0"}},
    "no files": {"files": WORD},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN.keys())
def test_no_message_quotes_a_manifest_that_others_wrote(tmp_path: Path, fields: dict[str, object]):
    checkpoint.write(Folder(f"file://{tmp_path}"), saved(1), job=JOB, keep=2)
    manifest = tmp_path / "step-00000001" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | fields))
    refused(tmp_path)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"job": "' + WORD.encode(), b"[]", b" " * 2**21])
def test_a_manifest_is_of_known_size_and_depth_before_it_is_parsed(tmp_path: Path, text: bytes):
    checkpoint.write(Folder(f"file://{tmp_path}"), saved(1), job=JOB, keep=2)
    (tmp_path / "step-00000001" / "manifest.json").write_bytes(text)
    refused(tmp_path)


@pytest.mark.parametrize("progress", [{}, {"step": WORD}, {"step": 1, "losses": [[WORD, 1]], "held_out_losses": []}])
def test_progress_that_others_wrote_is_believed_in_no_value(tmp_path: Path, progress: dict[str, object]):
    checkpoint.write(Folder(f"file://{tmp_path}"), saved(1), job=JOB, keep=2)
    here = tmp_path / "step-00000001"
    (here / "progress.json").write_text(json.dumps(progress))
    manifest = json.loads((here / "manifest.json").read_text())
    manifest["files"]["progress.json"] = hashlib.sha256((here / "progress.json").read_bytes()).hexdigest()
    (here / "manifest.json").write_text(json.dumps(manifest))
    refused(tmp_path)


def refused(folder: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        checkpoint.newest(Folder(f"file://{folder}"), job=JOB)
    assert caught.value.reason in {"OUTPUT_TAKEN", "OBJECT_TOO_LARGE"}
    assert not caught.value.retryable
    assert WORD not in caught.value.message


def test_none_at_all_is_none(tmp_path: Path):
    assert checkpoint.newest(Folder(f"file://{tmp_path}/absent"), job=JOB) is None
