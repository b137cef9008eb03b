"""What a job stands on is taken away while it trains. It ends once, with one artifact, and goes on from where it was."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from deploy.kubectl import get, kubectl
from lorafleet.v1 import training_service_pb2 as pb
from tests.k8s.apart import locked
from tests.k8s.fleet import PATIENCE_S, RUN_LABEL, Fleet, folder_of, run_object
from tests.k8s.waiting import until

STEPS, GATE = 20, 12
STORE_BACK_S = 30
KILL_ALL = "import os, signal; os.kill(-1, signal.SIGKILL)"  # but for the caller, and the first process, which the kernel shields


@contextmanager
def _training(fleet: Fleet, job_id: str, every_steps: int = 5) -> Iterator[pb.TrainingJob]:
    """A job of two workers that is past its second checkpoint, and is let through to its end by `_went_on` and `_rode_out`."""
    cluster, checkpointing = {"num_workers": 2}, {"every_steps": every_steps}
    name = fleet.submit(job_id, steps=STEPS, step_ms=200, gates=[GATE], cluster=cluster, checkpointing=checkpointing)
    yield fleet.until_step(name, GATE)


def _went_on(fleet: Fleet, job: pb.TrainingJob) -> pb.TrainingJob:
    """It ended in the second attempt, which began where the first had saved."""
    until(lambda: len(fleet.job(job.name).attempts) > 1, PATIENCE_S, f"another attempt of {job.name}", lambda: fleet.tell(job.name))
    fleet.open_gate(job, GATE)
    job = fleet.succeeded(job.name)
    assert [attempt.number for attempt in job.attempts] == [1, 2]
    assert job.attempts[0].reason
    assert job.attempts[0].end_time.ToNanoseconds() <= job.attempts[1].start_time.ToNanoseconds(), "one at a time"
    assert job.attempts[1].resumed_from_step >= 10
    bucket, prefix = folder_of(job)
    assert [key for key in fleet.store.keys(bucket, prefix) if key.endswith("adapter/manifest.json")] == [f"{prefix}/adapter/manifest.json"]
    return job


def _rode_out(fleet: Fleet, job: pb.TrainingJob) -> None:
    """It ended in the attempt in which it began."""
    fleet.open_gate(job, GATE)
    assert len(fleet.succeeded(job.name).attempts) == 1


def test_a_worker_dies_without_a_word(fleet: Fleet):
    """As when its node loses power: no hook runs, nothing is saved. What the spec saves on the way is what it goes on from."""
    with _training(fleet, "dead-worker") as job:
        pod = fleet.pods(job, kind="worker")[0]["metadata"]
        kubectl("-n", pod["namespace"], "exec", pod["name"], "--", "python", "-c", KILL_ALL)
    job = _went_on(fleet, job)
    assert job.attempts[1].resumed_from_step % 5 == 0
    assert job.attempts[0].reason != "STOPPED"


@pytest.mark.smoke
def test_a_worker_pod_is_deleted(fleet: Fleet):
    with _training(fleet, "lost-worker") as job:
        fleet.delete_pod(fleet.pods(job, kind="worker")[0], "--grace-period=0", "--force")
    _went_on(fleet, job)


def test_the_head_pod_is_deleted(fleet: Fleet):
    with _training(fleet, "lost-head") as job:
        fleet.delete_pod(fleet.pods(job, kind="head")[0], "--grace-period=0", "--force")
    _went_on(fleet, job)


def test_the_ray_job_is_deleted(fleet: Fleet):
    with _training(fleet, "lost-ray-job") as job:
        kubectl("-n", fleet.runs_namespace, "delete", "rayjob", run_object(job), "--wait=false")
    _went_on(fleet, job)


def test_all_pods_of_the_control_plane_are_deleted(fleet: Fleet):
    with _training(fleet, "lost-control-plane") as job:
        pods = get("pod", namespace=fleet.release.namespace, selector="app.kubernetes.io/component=control-plane")
        assert len(pods) == 2
        for pod in pods:
            fleet.delete_pod(pod, "--grace-period=0", "--force")
    _rode_out(fleet, job)


def test_the_pod_of_the_store_is_deleted(fleet: Fleet):
    with _training(fleet, "lost-store") as job:
        [pod] = get("pod", namespace=fleet.release.namespace, selector="app.kubernetes.io/component=minio")
        fleet.delete_pod(pod, "--grace-period=1")
        until(lambda: _store_is_back(fleet, pod["metadata"]["uid"]), STORE_BACK_S, "another MinIO, by the way in that is opened anew")
    _rode_out(fleet, job)


def test_a_node_is_drained(fleet: Fleet):
    """Evicted pods have their grace period; the run saves in it, though its next checkpoint by the spec is far away."""
    with _training(fleet, "drained", every_steps=1000) as job, locked("nodes"):
        nodes = sorted({pod["spec"]["nodeName"] for pod in fleet.pods(job)})
        before = fleet.job(job.name).progress.step
        try:
            for node in nodes:
                kubectl(
                    *("drain", node, f"--pod-selector={RUN_LABEL}={run_object(job)}", "--grace-period=60", "--timeout=150s"),
                    *("--ignore-daemonsets", "--delete-emptydir-data", "--force"),
                    timeout_s=180,
                )
        finally:
            for node in nodes:
                kubectl("uncordon", node)
    assert _went_on(fleet, job).attempts[1].resumed_from_step >= before


def _store_is_back(fleet: Fleet, gone: str) -> bool:
    pods = get("pod", namespace=fleet.release.namespace, selector="app.kubernetes.io/component=minio")
    with suppress(BotoCoreError, ClientError):
        return gone not in {pod["metadata"]["uid"] for pod in pods} and bool(fleet.store.s3.list_buckets()["Buckets"])
    return False
