"""Checkpoints: whole or not there, the newest few kept, nothing but the trainable state in them."""

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
    with pytest.raises(RunFailed, match="is a checkpoint of tenants/acme/jobs/one") as caught:
        checkpoint.newest(folder, job="tenants/acme/jobs/two")
    assert caught.value.reason == "OUTPUT_TAKEN"


def test_none_at_all_is_none(tmp_path: Path):
    assert checkpoint.newest(Folder(f"file://{tmp_path}/absent"), job=JOB) is None
