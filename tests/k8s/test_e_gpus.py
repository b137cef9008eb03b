"""Gangs of GPUs on a cluster that is too small for all of them. The GPUs are made up; scheduler, quota and admission are real."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.kubectl import apply, get, kubectl
from lorafleet.v1 import training_service_pb2 as pb
from tests.k8s.fleet import Fleet
from tests.k8s.waiting import until

GPU = "nvidia.com/gpu"
GANG = {"num_workers": 2, "gpus_per_worker": 1.0}


@pytest.fixture(scope="module", autouse=True)
def four_gpus() -> Iterator[None]:
    """The first node says that it has four."""
    nodes = get("node", namespace="default")
    node = next(each["metadata"]["name"] for each in nodes if not each["spec"].get("taints"))
    _patch_status(node, "4")
    until(lambda: get("node", namespace="default", name=node)["status"]["allocatable"].get(GPU) == "4", 60, "four GPUs on the node")
    yield
    _patch_status(node, None)


def _patch_status(node: str, count: str | None) -> None:
    patch = {"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}}
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def test_two_of_three_gangs_run_one_waits_and_a_high_one_takes_a_place(fleet: Fleet):
    first, second = (fleet.submit(name, steps=20, gates=[10], cluster=GANG) for name in ("gang-1", "gang-2"))
    for name in (first, second):
        fleet.until_step(name, 10)
    third = fleet.submit("gang-3", steps=5, cluster=GANG)
    waiting = until(lambda: job if (job := fleet.job(third)).reason else None, 30, "a reason why it waits")
    assert (waiting.state, waiting.reason) == (pb.JOB_STATE_QUEUED, "CLUSTER_FULL"), waiting.message
    assert waiting.message
    assert _gpus_in_use(fleet) == 4

    high = fleet.submit("gang-high", steps=5, cluster=GANG, scheduling={"priority": 90})
    fleet.until(high, "RUNNING", "SUCCEEDED")
    stopped = [job for job in map(fleet.job, (first, second)) if len(job.attempts) > 1 or job.state != pb.JOB_STATE_RUNNING]
    assert len(stopped) == 1, "one of the two has made room"
    fleet.succeeded(high)
    for name in (first, second):
        fleet.open_gate(fleet.job(name), 10)
    for name in (third, first, second):
        job = fleet.succeeded(name, within_s=900)
        if len(job.attempts) > 1:
            assert job.attempts[1].resumed_from_step == 10, "it had saved before it made room"


def test_a_namespace_quota_is_told_and_frees_the_way_once_it_is_lifted(fleet: Fleet):
    with _quota(fleet.runs_namespace, {f"requests.{GPU}": "1"}):
        name = fleet.submit("over-quota", steps=5, cluster=GANG)
        job = until(lambda: seen if "quota" in (seen := fleet.job(name)).message.lower() else None, 120, "the quota in its message")
        assert "requests.nvidia.com/gpu" in job.message
    fleet.succeeded(name, within_s=600)


def _gpus_in_use(fleet: Fleet) -> int:
    return sum(
        int(container["resources"].get("requests", {}).get(GPU, 0))
        for pod in get("pod", namespace=fleet.runs_namespace)
        for container in pod["spec"]["containers"]
    )


@contextmanager
def _quota(namespace: str, hard: dict[str, str]) -> Iterator[None]:
    name = "test-quota"
    apply([{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "namespace": namespace}, "spec": {"hard": hard}}])
    try:
        until(lambda: get("resourcequota", namespace=namespace, name=name).get("status", {}).get("hard"), 30, "the quota at work")
        yield
    finally:
        kubectl("-n", namespace, "delete", "resourcequota", name)
