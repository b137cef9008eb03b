"""A job of two workers, from submit over TLS to an artifact in the cluster's MinIO."""

import json

import grpc
import pytest

from deploy.kubectl import get, port_forward
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from tests.k8s.fleet import Fleet, folder_of, log_text, run_object

pytestmark = pytest.mark.smoke


def test_a_job_of_two_workers_ends_with_its_artifact_in_the_store(fleet: Fleet):
    name = fleet.submit("two-workers", steps=20, gates=[2], cluster={"num_workers": 2})
    job = fleet.until_step(name, 2)
    assert len(fleet.pods(job, kind="head")) == 1
    assert len(fleet.pods(job, kind="worker")) == 2
    _shows_no_secret(fleet, job)
    fleet.open_gate(job, 2)

    job = fleet.succeeded(name)
    bucket, prefix = folder_of(job)
    assert f"{prefix}/adapter/manifest.json" in fleet.store.keys(bucket, prefix)
    assert "step 20" in log_text(fleet, name)
    fleet.until_no_pods(job, within_s=120)


def test_without_a_token_nothing_is_told(fleet: Fleet):
    roots = (fleet.release.build / "ca.crt").read_bytes()
    with (
        port_forward(fleet.release.namespace, "lorafleet", 7600) as address,
        grpc.secure_channel(address, grpc.ssl_channel_credentials(roots)) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        rpc.TrainingServiceStub(channel).ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/default"))
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def _shows_no_secret(fleet: Fleet, job: pb.TrainingJob) -> None:
    """A run's token and the store's keys stand in Secrets: whoever may read pods and RayJobs reads neither."""
    [secret] = [each for each in get("secret", namespace=fleet.runs_namespace) if each["metadata"]["name"] == run_object(job)]
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "RayJob"
    shown = json.dumps([get(kind, namespace=fleet.runs_namespace) for kind in ("pod", "rayjob", "raycluster")])
    assert f"{job.attempts[-1].run}." not in shown, "a run token begins so"
    assert fleet.store.environment["AWS_SECRET_ACCESS_KEY"] not in shown
