"""What objects mean, by table: every trouble has a reason for programs and words for people."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.backends.base import Alive
from service.backends.kuberay.observation import Lost, observation
from service.control.attempts import Gone
from tests.service.backends.kuberay.objects import CREATED, event, job, killed_for_memory, pod, sight, waiting

NOW = datetime.fromisoformat(CREATED.replace("Z", "+00:00")) + timedelta(seconds=10)
NOT_SCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes: 1 Insufficient nvidia.com/gpu.",
}
EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
QUOTA = 'Failed to create worker Pod: pods "x" is forbidden: exceeded quota: gpus, requested: gpu=2, used: gpu=4, limited: gpu=4'
SECURITY = 'Failed to create head Pod: pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
WEBHOOK = 'Failed to create head Pod: admission webhook "policy.example" denied the request: no latest tags'

WAITS = [
    (sight(job()), "COMING_UP", "not made yet"),
    (sight(job("Initializing"), pod(conditions=[{"type": "Ready", "status": "True"}]), pod("w")), "COMING_UP", "1 of 2 pods are ready"),
    (sight(job("Initializing"), pod(), pod("w", conditions=[NOT_SCHEDULED])), "UNSCHEDULABLE", "Insufficient nvidia.com/gpu"),
    (sight(job("Initializing"), pod(**waiting("ImagePullBackOff", "no such host"))), "IMAGE_PULL_FAILED", "img:1"),
    (sight(job("Initializing"), pod(**waiting("ErrImagePull", "denied"))), "IMAGE_PULL_FAILED", "denied"),
    (sight(job("Initializing"), pod(**waiting("CreateContainerConfigError", 'secret "s" not found'))), "CONTAINER_NOT_STARTED", '"s"'),
    (sight(job("Initializing"), pod(**waiting("CrashLoopBackOff"))), "CRASH_LOOP", "again and again"),
    (sight(job("Initializing"), events=(event("FailedToCreateWorkerPod", QUOTA),)), "QUOTA_EXCEEDED", "limited: gpu=4"),
    (sight(job("Initializing"), events=(event("FailedToCreateHeadPod", SECURITY),)), "POD_SECURITY", "runAsNonRoot"),
    (sight(job("Initializing"), events=(event("FailedToCreateHeadPod", WEBHOOK),)), "WEBHOOK_REFUSED", "no latest tags"),
    (
        sight(job("Initializing"), pod(), events=(event("FailedMount", 'secret "t" not found', pod()["metadata"]["name"]),)),
        "VOLUME_NOT_READY",
        '"t"',
    ),
    (sight(job("Suspended", spec={"suspend": True})), "SUSPENDED", "Kueue"),
    (sight(job("Running", deleting=True), pod()), "ENDING", "1 pod of it is still there"),
    (sight(None, pod(), pod("w")), "ENDING", "2 pods of it are still there"),
]


@pytest.mark.parametrize(("seen", "reason", "words"), WAITS, ids=[f"{reason}-{words}" for _, reason, words in WAITS])
def test_a_run_that_waits_says_why(seen, reason, words):
    found = observation(seen, NOW)
    assert isinstance(found, Alive)
    assert found.waiting == reason
    assert words in found.message
    assert not found.leaving
    assert found.is_bounded is (reason != "ENDING")


def test_an_operator_that_does_not_look_is_told_of_after_a_while():
    later = NOW + timedelta(minutes=1)
    assert observation(sight(job()), later) == Alive(
        waiting="OPERATOR_SILENT", message="KubeRay has not taken it up; is its operator running, and does it watch this namespace?"
    )


def test_a_refusal_of_long_ago_is_not_told_once_all_pods_are_there():
    seen = sight(job("Initializing"), pod(), pod("a"), pod("b"), events=(event("FailedToCreateWorkerPod", QUOTA),))
    assert observation(seen, NOW) == Alive(waiting="COMING_UP", message="0 of 3 pods are ready", is_bounded=True)


def test_a_running_job_is_alive_and_nothing_else():
    assert observation(sight(job("Running"), pod(), pod("a")), NOW) == Alive()


LEAVES = [
    (sight(job("Running"), pod(deleting=True)), "POD_DELETED", "the head's pod"),
    (sight(job("Running"), pod(), pod("a", deleting=True)), "POD_DELETED", "a worker's pod"),
    (sight(job("Running"), pod(), pod("a", deleting=True, conditions=[EVICTED])), "EVICTED", "EvictionByEvictionAPI"),
    (sight(job("Suspending", spec={"suspend": True}), pod(deleting=True)), "SUSPENDED", "Kueue"),
    (sight(job("Running", spec={"suspend": True}), pod(), pod("a", deleting=True)), "SUSPENDED", "Kueue"),
]


@pytest.mark.parametrize(("seen", "reason", "words"), LEAVES)
def test_a_run_whose_pod_is_taken_away_must_leave(seen, reason, words):
    found = observation(seen, NOW)
    assert isinstance(found, Alive)
    assert found.leaving == reason
    assert words in found.message


LOST = [
    (sight(job("Running"), pod(phase="Failed")), "RAY_HEAD_GONE"),
    (sight(job("Running"), pod(containerStatuses=[{"name": "ray-head", "restartCount": 1, "state": {"running": {}}}])), "RAY_HEAD_GONE"),
    (sight(job("Running"), pod(phase="Failed", reason="Evicted", message="low on memory")), "EVICTED"),
    (sight(job("Running"), pod(**killed_for_memory())), "OOM_KILLED"),
    (sight(job("Running"), departed_pods=(pod(deleting=True),)), "POD_DELETED"),
    (sight(job("Running"), pod("w"), departed_pods=(pod(deleting=True, conditions=[EVICTED]),)), "EVICTED"),
]


@pytest.mark.parametrize(("seen", "reason"), LOST)
def test_a_run_without_its_head_is_lost_and_must_be_ended(seen, reason):
    found = observation(seen, NOW)
    assert isinstance(found, Lost)
    assert found.reason == reason


APP_FAILED = {"jobStatus": "FAILED", "reason": "AppFailed", "message": "exit code 1 (truncated to 20,000 chars):\nValueError: no"}
LATE = {"reason": "PreRunningDeadlineExceeded", "message": "..."}
ENDS = [
    (sight(job("Complete", jobStatus="SUCCEEDED"), pod()), "DRIVER_EXITED", "code 0"),
    (sight(job("Complete", jobStatus="STOPPED")), "RUN_STOPPED", "stopped"),
    (sight(job("Failed", **APP_FAILED), pod()), "DRIVER_EXITED", "its last lines: ValueError: no"),
    (sight(job("Failed", **APP_FAILED), pod(), pod("w", limit="4Gi", **killed_for_memory())), "OOM_KILLED", "memory limit of 4Gi"),
    (sight(job("Failed", **APP_FAILED), departed_pods=(pod("w", phase="Failed", reason="Evicted", message="disk"),)), "EVICTED", "disk"),
    (sight(job("Failed", **APP_FAILED), pod("w", reason="NodeLost")), "NODE_LOST", "node-1"),
    (
        sight(job("Failed", **LATE), pod(conditions=[NOT_SCHEDULED])),
        "UNSCHEDULABLE",
        "not started within 900 s: the head's pod finds no node",
    ),
    (sight(job("Failed", **LATE)), "START_TIMEOUT", "not started within 900 s"),
    (sight(job("Failed", reason="SubmissionFailed", message="HTTP 500")), "RUN_LOST", "HTTP 500"),
    (sight(job("ValidationFailed", message="bad name")), "RAYJOB_INVALID", "bad name"),
    (sight(None), "RUN_LOST", "no RayJob"),
    (sight(None, departed_ray_job=job("Running")), "RAYJOB_DELETED", "somebody deleted"),
    (sight(None, departed_ray_job=job("Complete", jobStatus="SUCCEEDED")), "DRIVER_EXITED", "code 0"),
]


@pytest.mark.parametrize(("seen", "reason", "words"), ENDS, ids=[f"{reason}-{words}" for _, reason, words in ENDS])
def test_a_run_that_has_ended_says_why(seen, reason, words):
    found = observation(seen, NOW)
    assert isinstance(found, Gone)
    assert found.reason == reason
    assert words in found.message


def test_who_ended_it_is_noted_on_what_went():
    last = job("Running")
    last["metadata"]["annotations"]["lorafleet.dev/ended"] = "OOM_KILLED the head took too much"
    assert observation(sight(None, departed_ray_job=last), datetime.now(UTC)) == Gone(reason="OOM_KILLED", message="the head took too much")


def test_pods_that_are_still_there_keep_the_next_attempt_away():
    """Somebody deleted the RayJob without waiting for its pods."""
    assert isinstance(observation(sight(None, pod("w", deleting=True), departed_ray_job=job("Running")), NOW), Alive)


@pytest.mark.parametrize("left", [job("Running", deleting=True), None])
def test_pods_of_a_node_that_answers_no_more_do_not_hold_their_job_for_ever(left: dict[str, Any] | None):
    seen = sight(left, pod(deleting=True), departed_ray_job=None if left else job("Running"))
    assert isinstance(observation(seen, NOW + timedelta(minutes=4)), Alive)
    assert observation(seen, NOW + timedelta(minutes=6)) == Gone(
        reason="NODE_LOST", message="the node of its pods (node-1) does not answer: they were told to end, and were not seen to"
    )


def test_one_pod_that_is_still_to_end_keeps_the_next_attempt_away():
    seen = sight(job("Running", deleting=True), pod(deleting=True), pod("w"))
    assert isinstance(observation(seen, NOW + timedelta(days=1)), Alive)


def test_of_a_lost_node_it_is_told_why_the_run_was_ended():
    ended = job("Running", deleting=True)
    ended["metadata"]["annotations"]["lorafleet.dev/ended"] = "RUN_STOPPED the run was stopped"
    found = observation(sight(ended, pod(deleting=True)), NOW + timedelta(hours=1))
    assert found == Gone(reason="RUN_STOPPED", message="the run was stopped")


def _host(started: str | None, **more: Any) -> dict[str, Any]:
    """The head of a standing cluster."""
    state = {"waiting": {}} if started is None else {"running": {"startedAt": started}}
    return pod(containerStatuses=[{"name": "ray-head", "state": state}], **more)


ON_HOSTS = [
    (_host("2026-11-25T09:00:00Z"), Alive()),
    (_host("2026-11-25T10:00:01Z"), "RAY_HEAD_GONE"),  # begun after the run
    (_host(None), "RAY_HEAD_GONE"),
]


@pytest.mark.parametrize(("host", "expected"), ON_HOSTS)
def test_on_a_standing_cluster_a_run_lives_as_long_as_the_head_that_it_began_on(host, expected):
    seen = sight(job("Running", spec={"clusterSelector": {"ray.io/cluster": "warm"}}), hosts=(host,))
    found = observation(seen, NOW)
    assert found == expected or (isinstance(found, Lost) and found.reason == expected)


def test_a_run_on_a_standing_cluster_whose_head_has_no_label_is_not_ended_for_that():
    found = observation(sight(job("Running", spec={"clusterSelector": {"ray.io/cluster": "warm"}})), NOW)
    assert isinstance(found, Alive)
    assert found.waiting == "STANDING_CLUSTER_NOT_SEEN"
    assert "app.kubernetes.io/managed-by: lorafleet" in found.message


def test_a_standing_clusters_head_that_goes_makes_its_runs_leave():
    seen = sight(job("Running", spec={"clusterSelector": {"ray.io/cluster": "warm"}}), hosts=(_host(CREATED, deleting=True),))
    found = observation(seen, NOW)
    assert isinstance(found, Alive)
    assert found.leaving == "POD_DELETED"
