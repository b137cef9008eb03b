"""One style on one worker, in this process: real model, real DeepSpeed, no Ray. Resume, NaN, precision, text encoder."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from examples.demo import BASE_MODEL, PICTURES
from lorafleet import spec
from lorafleet.errors import RunFailed
from lorafleet.layout import JobLayout
from lorafleet.run_manifest import Style
from service.backends.ray_head import free_ports
from trainer import artifact, checkpoint, objective
from trainer.adapters import lora
from trainer.engine import select_accelerator
from trainer.group import Group
from trainer.prepare import prepare
from trainer.storage import Folder
from trainer.style_run import StyleRun

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    places = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update(places, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_ports(1)[0]))
    dist.init_process_group("gloo", rank=0, world_size=1)
    yield Group.current()
    dist.destroy_process_group()


class Bench:
    """Makes runs of one job in a folder; a second run of the same name resumes the first."""

    def __init__(self, folder: Path, group: Group) -> None:
        self.folder, self.group = folder, group

    def run(self, name: str, **parts: dict[str, Any]) -> StyleRun:
        fields: dict[str, dict[str, Any]] = {
            "base_model": {"uri": f"file://{BASE_MODEL}"},
            "dataset": {"uri": f"file://{PICTURES}", "validation_fraction": 0.02},
            "adapter": {"rank": 2, "target_modules": ["to_q", "to_v"]},
            "training": {"max_steps": 6, "micro_batch_size": 2, "learning_rate": 1e-3},
            "checkpointing": {"every_steps": 3},
        }
        merged = {key: {**fields.get(key, {}), **parts.get(key, {})} for key in {*fields, *parts}}
        style = Style(job=f"tenants/t/jobs/{name}", spec=spec.parse(merged), output_uri=f"file://{self.folder}/{name}")
        cache = Folder(f"file://{self.folder}/cache")
        return StyleRun(prepare(style, cache), cache, self.group, select_accelerator(spec.ClusterSpec()), None)

    def saved(self, name: str) -> checkpoint.Checkpoint:
        found = checkpoint.newest(Folder(JobLayout(f"file://{self.folder}/{name}").checkpoints), job=f"tenants/t/jobs/{name}")
        assert found is not None
        return found

    def pictures(self, name: str, step: int) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.folder / name / "samples" / f"step-{step:08d}").iterdir())]

    def losses(self, name: str) -> list[float]:
        return [loss for _, loss in self.saved(name).progress.losses]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Bench:
    return Bench(tmp_path_factory.mktemp("styles"), group)


class Killed(Exception):
    pass


def die_at(run: StyleRun, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 in mid-run, as far as the store can tell: nothing runs after it."""
    train_step = run._train_step

    def step_or_die() -> None:
        if run.step == step:
            raise Killed
        train_step()

    monkeypatch.setattr(run, "_train_step", step_or_die)
    with pytest.raises(Killed):
        run.train()


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_killed_run_resumes_bit_for_bit(bench: Bench, zero_stage: int, monkeypatch: pytest.MonkeyPatch):
    parts: dict[str, Any] = {"cluster": {"zero_stage": zero_stage}, "adapter": {"dropout": 0.1}, "training": {"caption_dropout": 0.3}}
    bench.run(f"straight-{zero_stage}", **parts).train()
    die_at(bench.run(f"killed-{zero_stage}", **parts), 5, monkeypatch)
    resumed = bench.run(f"killed-{zero_stage}", **parts)
    assert resumed.step == 3
    assert resumed.train() == "succeeded"

    straight, killed = bench.saved(f"straight-{zero_stage}"), bench.saved(f"killed-{zero_stage}")
    assert straight.progress == killed.progress
    for name, tensor in straight.weights.items():
        assert torch.equal(tensor, killed.weights[name]), name
    for name, tensor in straight.moments.items():
        assert torch.equal(tensor, killed.moments[name]), name


def test_a_checkpoint_of_one_zero_stage_resumes_under_another(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.run("stays").train()
    die_at(bench.run("moves", cluster={"zero_stage": 3}), 4, monkeypatch)
    bench.run("moves", cluster={"zero_stage": 1}).train()
    assert bench.losses("moves") == pytest.approx(bench.losses("stays"))


def test_a_loss_that_is_no_number_ends_the_run_at_its_step_and_keeps_the_last_good_checkpoint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    run = bench.run("explodes")
    loss = objective.per_sample_loss

    def explode(predicted: torch.Tensor, batch: objective.MicroBatch) -> torch.Tensor:
        return loss(predicted, batch) * (float("nan") if run.step == 4 else 1)

    monkeypatch.setattr(objective, "per_sample_loss", explode)
    with pytest.raises(RunFailed, match="at step 5; the checkpoint of step 3 is kept") as caught:
        run.train()
    assert caught.value.reason == "LOSS_NOT_FINITE"
    assert not caught.value.retryable
    saved = bench.saved("explodes")
    assert saved.progress.step == 3
    assert all(tensor.isfinite().all() for tensor in saved.weights.values())


def test_weights_that_are_no_numbers_are_never_saved(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    run = bench.run("overflows")
    step = run.engine.step

    def overflow(*, learning_rate: float) -> None:
        step(learning_rate=float("inf") if run.step == 5 else learning_rate)

    monkeypatch.setattr(run.engine, "step", overflow)
    with pytest.raises(RunFailed, match="weights are not finite after step 6; the checkpoint of step 3 is kept"):
        run.train()
    assert artifact.existing(run.style) is None


def test_pictures_are_drawn_under_zero_3_also_when_the_texts_were_cached(bench: Bench):
    prompts = {"prompts": ["an emoji of owl"], "num_inference_steps": 2}
    parts: dict[str, Any] = {"cluster": {"zero_stage": 3}, "validation": prompts, "training": {"max_steps": 1, "precision": "bf16"}}
    bench.run("draws", **parts).train()
    bench.run("draws-again", **parts).train()
    assert bench.pictures("draws", 1) == bench.pictures("draws-again", 1)
    assert len(bench.pictures("draws", 1)) == 1


def test_a_checkpoint_holds_the_trainable_state_only(bench: Bench):
    run = bench.run("small", adapter={"text_encoder": True})
    run.train()
    saved = bench.saved("small")
    assert set(saved.weights) == {lora.canonical_name(name) for name in run.engine.parameters}
    assert any(name.startswith("text_encoder.") for name in saved.weights)
    assert {".lora_A.", ".lora_B."} == {f".{name.split('.')[-2]}." for name in saved.weights}
    assert len(saved.moments) == 2 * len(saved.weights)


def test_bf16_trains_an_fp32_adapter_over_a_bf16_base(bench: Bench):
    run = bench.run("half", training={"precision": "bf16"})
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in run.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    run.train()
    exact = bench.run("whole")
    exact.train()
    assert bench.losses("half") == pytest.approx(bench.losses("whole"), rel=0.05)
    assert bench.losses("half") != bench.losses("whole")


def test_gradient_accumulation_is_a_larger_batch(bench: Bench):
    bench.run("accumulated", training={"micro_batch_size": 1, "gradient_accumulation_steps": 2}).train()
    bench.run("at-once", training={"micro_batch_size": 2}).train()
    assert bench.losses("accumulated") == pytest.approx(bench.losses("at-once"), rel=1e-4)


def test_a_run_that_died_after_its_commit_finds_its_artifact(bench: Bench):
    run = bench.run("done")
    run.train()
    found = artifact.existing(run.style)
    assert found is not None
    assert bench.run("done").train() == "succeeded"
    assert artifact.existing(run.style) == found, "the first commit stands"
    folder = bench.folder / "done" / "adapter"
    for path, facts in json.loads((folder / "manifest.json").read_text())["files"].items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == facts["sha256"], path


def test_the_artifact_of_another_job_is_never_overwritten(bench: Bench):
    run = bench.run("owner")
    run.train()
    other = dataclasses.replace(run.style, job="tenants/t/jobs/thief")
    with pytest.raises(RunFailed, match="already holds the artifact of another job"):
        artifact.existing(other)
