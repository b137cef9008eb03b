"""The real trainer in pods: the demo with two workers, and the promise that a result does not depend on where it ran."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import demo as deployed
from examples import demo as local
from lorafleet.layout import step_folder
from tests.k8s.fleet import Fleet, folder_of
from tests.k8s.release import REPOSITORY

TOLERANCE = 1e-5
LAST_STEP = 200  # of examples/emoji-style.yaml


@pytest.fixture(scope="module", autouse=True)
def real_trainer(whole_fleet: Fleet) -> Iterator[None]:
    """The same release, whose runs start from the trainer's own image meanwhile."""
    repository, _, tag = os.environ.get("TRAINER_IMAGE", "local/lorafleet-trainer:test").rpartition(":")
    values = ["--set", f"trainerImage.repository={repository}", "--set-string", f"trainerImage.tag={tag}"]
    values += ["--set", "runs.profiles.default.head.memory=4Gi", "--set", "runs.profiles.default.worker.shmSize=1Gi"]
    whole_fleet.release.helm("upgrade", "lorafleet", str(REPOSITORY / "helm" / "lorafleet"), "--reuse-values", *values, "--wait")
    yield
    whole_fleet.release.helm("rollback", "lorafleet", "--wait")


def test_the_demo_with_two_workers_ends_with_pictures(fleet: Fleet):
    assert _run_demo(fleet, workers=2) == 0
    report = json.loads((fleet.release.build / "demo" / "report.json").read_text())
    assert report["state"] == "SUCCEEDED"
    assert report["held_out_loss_adapter"] < report["held_out_loss_base"]
    assert (fleet.release.build / "demo" / "before-after.png").is_file()


def test_the_same_spec_has_the_same_losses_as_make_demo(fleet: Fleet):
    assert _run_demo(fleet, workers=1) == 0
    name = json.loads((fleet.release.build / "demo" / "report.json").read_text())["job"]
    bucket, prefix = folder_of(fleet.job(name))
    path = f"{prefix}/checkpoints/{step_folder(LAST_STEP)}/progress.json"
    here = _losses(fleet.store.s3.get_object(Bucket=bucket, Key=path)["Body"].read())

    local.BUILD = REPOSITORY / "build" / "demo"
    assert local.main([]) == 0
    there = _losses(_local_checkpoint().read_bytes())
    assert here.keys() == there.keys()
    assert len(here) == LAST_STEP
    assert max(abs(here[step] - there[step]) for step in here) <= TOLERANCE


def _run_demo(fleet: Fleet, workers: int) -> int:
    release = fleet.release
    options = ["--namespace", release.namespace, "--runs-namespace", release.runs_namespace]
    return deployed.main([*options, "--workers", str(workers), "--build", str(release.build)])


def _local_checkpoint() -> Path:
    [path] = (REPOSITORY / "build" / "demo" / "store").rglob(f"{step_folder(LAST_STEP)}/progress.json")
    return path


def _losses(progress: bytes) -> dict[int, float]:
    return dict(json.loads(progress)["losses"])
