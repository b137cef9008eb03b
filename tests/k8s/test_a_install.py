"""The release itself: both replicas, `helm test`, and that an upgrade and a rollback pass a running job by."""

import pytest

from deploy.kubectl import get
from lorafleet.v1 import training_service_pb2 as pb
from tests.k8s.fleet import Fleet
from tests.k8s.release import REPOSITORY, Release
from tests.k8s.waiting import until

CHART = str(REPOSITORY / "helm" / "lorafleet")


@pytest.mark.smoke
def test_both_replicas_of_the_control_plane_are_ready(release: Release):
    deployment = get("deployment", namespace=release.namespace, name="lorafleet")
    assert deployment["spec"]["replicas"] == deployment["status"]["readyReplicas"] == 2


@pytest.mark.smoke
def test_every_namespace_enforces_the_restricted_standard(release: Release):
    for namespace in (release.namespace, release.runs_namespace):
        labels = get("namespace", namespace=namespace, name=namespace)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.smoke
def test_helm_test_passes(release: Release):
    told = release.helm("test", "lorafleet", "--timeout", "3m", "--logs")
    assert "Succeeded" in told
    assert ": SERVING" in told, "what the test's pod wrote"


def test_an_upgrade_and_a_rollback_pass_a_running_job_by(fleet: Fleet, release: Release):
    name = fleet.submit("upgraded", steps=15, step_ms=200, gates=[5, 10])
    job = fleet.until_step(name, 5)
    release.helm("upgrade", "lorafleet", CHART, "--reuse-values", "--set-string", "podAnnotations.upgraded=yes", "--wait")
    assert _annotations(release).get("upgraded") == "yes"
    fleet.open_gate(job, 5)
    assert fleet.until_step(name, 10).state == pb.JOB_STATE_RUNNING

    release.helm("rollback", "lorafleet", "--wait")
    until(lambda: "upgraded" not in _annotations(release), 60, "the pod template of before")
    fleet.open_gate(job, 10)
    assert len(fleet.succeeded(name).attempts) == 1


def _annotations(release: Release) -> dict[str, str]:
    deployment = get("deployment", namespace=release.namespace, name="lorafleet")
    return deployment["spec"]["template"]["metadata"].get("annotations", {})
