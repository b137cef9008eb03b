"""The real trainer in pods: the demo with two workers, and the promise that a result does not depend on where it ran."""

import json
import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from deploy import demo as deployed
from examples import demo
from lorafleet import spec_file
from lorafleet.contract.layout import step_folder
from tests.k8s.fleet import Fleet, folder_of
from tests.k8s.here import LAST_STEP, losses_here, losses_of
from tests.k8s.release import REPOSITORY

TOLERANCE = 1e-5
TRAINS_WITHIN_S = 1200


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
    release = fleet.release
    options = ["--namespace", release.namespace, "--runs-namespace", release.runs_namespace]
    with patch.dict(os.environ):  # the demo has a way of its own to the store, for as long as it lasts
        assert deployed.main([*options, "--workers", "2", "--build", str(release.build)]) == 0
    report = json.loads((release.build / "demo" / "report.json").read_text())
    assert report["state"] == "SUCCEEDED"
    assert report["held_out_loss_adapter"] < report["held_out_loss_base"]
    assert (release.build / "demo" / "before-after.png").is_file()


def test_the_same_spec_has_the_same_losses_as_make_demo(fleet: Fleet):
    job = fleet.client.create(spec_file.load(demo.SPEC))
    job = fleet.succeeded(job.name, within_s=TRAINS_WITHIN_S)
    bucket, prefix = folder_of(job)
    path = f"{prefix}/checkpoints/{step_folder(LAST_STEP)}/progress.json"
    there, here = losses_of(fleet.store.s3.get_object(Bucket=bucket, Key=path)["Body"].read()), losses_here()
    assert there.keys() == here.keys()
    assert len(there) == LAST_STEP
    assert max(abs(there[step] - here[step]) for step in there) <= TOLERANCE
