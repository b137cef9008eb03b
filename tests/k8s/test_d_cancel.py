"""A cancelled job saves its work and leaves the cluster."""

import time

import pytest

from tests.k8s.fleet import Fleet, folder_of, log_text


@pytest.mark.smoke
def test_a_cancelled_job_saves_a_checkpoint_and_its_pods_are_gone_within_a_minute(fleet: Fleet):
    name = fleet.submit("unwanted", steps=1000, step_ms=500, cluster={"num_workers": 2}, checkpointing={"every_steps": 1000})
    fleet.until_step(name, 3)
    asked = time.monotonic()
    fleet.client.cancel(name)
    job = fleet.until(name, "CANCELLED", within_s=60)
    fleet.until_no_pods(job, within_s=60 - (time.monotonic() - asked))

    bucket, prefix = folder_of(job)
    [saved] = [key for key in fleet.store.keys(bucket, f"{prefix}/checkpoints/") if key.endswith("manifest.json")]
    assert int(saved.split("/step-")[1].split("/")[0]) >= 3
    assert "step 3" in log_text(fleet, name), "the log outlives the pods"
