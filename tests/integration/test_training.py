"""Training for real: Ray, DeepSpeed, MinIO, gRPC. What it promises is checked in what it leaves behind."""

import sys
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from PIL import Image

from examples.demo import BASE_MODEL, PICTURES
from examples.restyle import restyle
from lorafleet import spec
from lorafleet.blobs import blobs_at
from lorafleet.contract.layout import JobLayout
from lorafleet.contract.run_manifest import RUN_TOKEN_ENV, RunManifest, Style
from lorafleet.download import download
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1.report_service_pb2 import STYLE_OUTCOME_SUCCEEDED
from tests.integration.conftest import PATIENCE_S, Fleet
from tests.service.serving import until
from tests.trainer.test_report import ControlPlane, serve
from trainer import checkpoint
from trainer.storage import Folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
RUN_ACTORS = {"JobSupervisor", "TrainController", "SynchronizationActor", "RayTrainWorker"}  # each is seconds of a core to start


def make_spec(base: str, style: str, **parts: Any) -> spec.Spec:
    fields: dict[str, Any] = {
        "base_model": {"uri": base},
        "dataset": {"uri": style, "validation_fraction": 0.02},
        "adapter": {"rank": 4},
        "training": {"max_steps": 20, "micro_batch_size": 4, "learning_rate": 1e-3, "seed": 3},
    }
    return spec.parse({name: {**fields.get(name, {}), **parts.get(name, {})} for name in {*fields, *parts}})


def losses(folder: Path, name: str) -> list[float]:
    saved = checkpoint.newest(Folder(JobLayout(f"file://{folder}/{name}").checkpoints), job=f"tenants/acme/jobs/{name}")
    assert saved is not None
    return [loss for _, loss in saved.progress.losses]


def run_directly(fleet: Fleet, manifest: RunManifest, folder: Path) -> None:
    """Runs a driver as the backend would, on the fleet's Ray."""
    (folder / "run.json").write_text(manifest.model_dump_json())
    body = {
        "entrypoint": f"{sys.executable} -m trainer.run --manifest file://{folder}/run.json",
        "submission_id": manifest.run,
        "runtime_env": {"env_vars": {RUN_TOKEN_ENV: "s3cret"}},
    }
    fleet.wait_for_ray()
    fleet.ray("POST", "/api/jobs/", json=body)

    def status() -> str:
        return fleet.ray("GET", f"/api/jobs/{manifest.run}").json()["status"]

    until(lambda: status() in {"SUCCEEDED", "FAILED", "STOPPED"}, PATIENCE_S, "the run's end")
    logs = fleet.ray("GET", f"/api/jobs/{manifest.run}/logs").json()["logs"]
    (folder / "log").write_text(logs)
    assert status() == "SUCCEEDED", logs[-5000:]


@pytest.mark.proof
def test_one_worker_or_two_at_every_zero_stage_give_the_same_losses(fleet: Fleet, base: str, style: str, tmp_path: Path):
    """Four styles of one run, alike but for the ZeRO stage, on two workers, the first in a pack; then one worker, same global batches."""
    plane = ControlPlane()
    server, port = serve(plane)

    def manifest(run: str, specs: dict[str, spec.Spec]) -> RunManifest:
        pack = tuple(
            Style(job=f"tenants/acme/jobs/{name}", spec=each, output_uri=f"file://{tmp_path}/{name}") for name, each in specs.items()
        )
        places = {"cache_uri": f"file://{tmp_path}/cache", "storage_dir": str(tmp_path / "ray")}
        return RunManifest(run=run, attempt=1, pack=pack, in_company=True, report_address=f"127.0.0.1:{port}", **places)

    def at(zero_stage: int, num_workers: int, seed: int = 3) -> spec.Spec:
        training = {"micro_batch_size": 8 // num_workers, "seed": seed}
        return make_spec(base, style, training=training, cluster={"num_workers": num_workers, "zero_stage": zero_stage})

    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    on_two = {"companion": at(0, 2, seed=4), **{f"zero-{stage}": at(stage, 2) for stage in range(4)}}
    run_directly(fleet, manifest("zero-two-workers", on_two), tmp_path / "two")
    run_directly(fleet, manifest("zero-one-worker", {"alone": at(0, 1), "companion-alone": at(0, 1, seed=4)}), tmp_path / "one")
    server.stop(None)

    alone = losses(tmp_path, "alone")
    log = (tmp_path / "two" / "log").read_text()
    assert len(alone) == 20
    for stage in range(4):
        assert losses(tmp_path, f"zero-{stage}") == pytest.approx(alone, rel=1e-3)
        for rank in range(2):
            assert f"DeepSpeedEngine, ZeRO stage {stage}, rank {rank} of 2" in log
    assert "2 styles" in log, "two workers train a pack"
    assert losses(tmp_path, "companion") == pytest.approx(losses(tmp_path, "companion-alone"), rel=1e-3)
    assert [end.outcome for end in plane.ends()] == [STYLE_OUTCOME_SUCCEEDED] * 7


def test_a_job_of_two_workers_through_s3_draws_the_same_pictures_in_a_fresh_pipeline(fleet: Fleet, s3: dict[str, str], tmp_path: Path):
    """Data set, base model and artifact in MinIO, DeepSpeed's ZeRO 2 on two workers; both LoRA files draw what the trainer drew."""
    restyle("sepia", PICTURES, tmp_path / "style")
    upload(BASE_MODEL, "models", "emoji-sd")
    upload(tmp_path / "style", "styles", "sepia")
    asked = make_spec(
        "s3://models/emoji-sd",
        "s3://styles/sepia",
        adapter={
            "alpha": 8.0,
            "text_encoder": True,
            "target_modules": ["to_q", "to_v", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "upsamplers.0.conv"],
        },
        validation={"prompts": ["an emoji of owl", "an emoji of red apple"], "num_inference_steps": 8, "seed": 11},
        output={"uri": "s3://styles/out", "precision": "fp32"},
        training={"micro_batch_size": 2},
        cluster={"num_workers": 2, "zero_stage": 2},
    )
    job = fleet.client.create(asked, job_id="through-s3")
    job = fleet.reach(job.name, "SUCCEEDED")

    manifest = download(blobs_at(job.artifact.uri), job.artifact.manifest_sha256, tmp_path / "adapter")
    weight_names = {"through-s3-pytorch_lora_weights.safetensors", "through-s3.safetensors"}
    assert weight_names | {"README.md", "samples/000.png", "samples/001.png"} == set(manifest.files)
    for weight_name in weight_names:
        drawn = draw(tmp_path / "adapter", weight_name, asked)
        for index, picture in enumerate(drawn):
            expected = np.asarray(Image.open(tmp_path / "adapter" / "samples" / f"{index:03d}.png"), dtype=int)
            assert np.abs(np.asarray(picture, dtype=int) - expected).max() <= 2, weight_name
    plain = np.asarray(draw(None, "", asked)[0], dtype=int)
    assert np.abs(plain - np.asarray(drawn[0], dtype=int)).max() > 10, "the adapter changes the picture"

    entries = [entry.path for entry in Folder("s3://styles/out").list()]
    assert any(path.startswith("metrics/events.out") for path in entries)
    assert {"spec.json", "samples/step-00000000/000.png", "logs/attempt-1.log"} <= set(entries)
    log = fleet.log(job.name)
    assert "prepared" in log
    for rank in range(2):
        assert f"DeepSpeedEngine, ZeRO stage 2, rank {rank} of 2" in log
    assert s3["AWS_SECRET_ACCESS_KEY"] not in log
    started = fleet.ray("GET", "/api/v0/actors").json()["data"]["result"]["result"]
    assert {actor["class_name"] for actor in started} == RUN_ACTORS


def upload(folder: Path, bucket: str, prefix: str) -> None:
    boto3.session.Session().client("s3").create_bucket(Bucket=bucket)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    Folder(f"s3://{bucket}/{prefix}").write_all(files)


def draw(folder: Path | None, weight_name: str, asked: spec.Spec) -> list[Image.Image]:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(BASE_MODEL, dtype=torch.float32)
    if folder is not None:
        pipeline.load_lora_weights(folder, weight_name=weight_name)
    validation = asked.validation
    return [
        pipeline(
            prompt,
            generator=torch.Generator("cpu").manual_seed(validation.seed + index),
            guidance_scale=validation.guidance_scale,
            num_inference_steps=validation.num_inference_steps,
        ).images[0]
        for index, prompt in enumerate(validation.prompts)
    ]


@pytest.mark.proof
def test_kills_of_control_plane_and_driver_cost_no_job_and_cancel_saves_a_checkpoint(fleet: Fleet, base: str, style: str):
    """One long job: kill -9 of the control plane, then of the driver, then cancel. Three promises, two group starts."""
    asked = make_spec(base, style, training={"max_steps": 100_000, "lr_scheduler": "constant"}, checkpointing={"every_steps": 5})
    job = fleet.client.create(asked, job_id="long")
    job = fleet.reach(job.name, "RUNNING", step=6)

    fleet.served.kill()
    fleet.start()
    after = fleet.reach(job.name, "RUNNING", step=job.progress.step + 5)
    assert [attempt.run for attempt in after.attempts] == [attempt.run for attempt in job.attempts], "adopted, not started again"

    fleet.driver(after).kill()
    resumed = fleet.reach(job.name, "RUNNING", step=after.progress.step + 1, attempts=2)
    assert len(resumed.attempts) == 2
    assert resumed.attempts[1].resumed_from_step >= 5
    assert resumed.attempts[1].resumed_from_step % 5 == 0

    fleet.client.cancel(job.name)
    until(lambda: fleet.client.get(job.name).HasField("end_time"), 30, "CANCELLED within 30 s")
    ended = fleet.client.get(job.name)
    assert ended.state == pb.JOB_STATE_CANCELLED
    saved = checkpoint.newest(Folder(JobLayout(ended.output_uri).checkpoints), job=ended.name)
    assert saved is not None
    assert saved.progress.step >= resumed.progress.step
    assert len(saved.progress.losses) == saved.progress.step, "every step once, over both attempts"
    assert Folder(JobLayout(ended.output_uri).adapter).list() == []
