"""Objects of a run as the API server shows them, for tests of what they mean."""

from typing import Any

from lorafleet.spec import ClusterSpec
from service.backends.base import RunRequest
from service.backends.kuberay.config import KuberayConfig, parse
from service.backends.kuberay.watch import Sight

RUN = RunRequest(
    run_id="run-0123456789abcdef",
    instance="ours",
    manifest_uri="s3://b/runs/run-0123456789abcdef.json",
    token="secret-token",
    tenant="acme",
    cluster=ClusterSpec(num_workers=2, cpus_per_worker=2, gpus_per_worker=1, memory_gib_per_worker=4),
)
CREATED = "2026-11-25T10:00:00Z"


def config(**changes: Any) -> KuberayConfig:
    return parse({"namespace": "runs", "image": "registry/trainer:1", **changes})


def job(deployment: str = "", *, spec: dict[str, Any] | None = None, deleting: bool = False, **status: Any) -> dict[str, Any]:
    """A RayJob with a head and two workers."""
    metadata: dict[str, Any] = {"name": RUN.run_id, "uid": "j", "creationTimestamp": CREATED, "labels": {}, "annotations": {}}
    if deleting:
        metadata["deletionTimestamp"] = CREATED
    cluster = {"workerGroupSpecs": [{"replicas": 2}]}
    wanted = {"rayClusterSpec": cluster, "preRunningDeadlineSeconds": 900, **(spec or {})}
    said = {"jobDeploymentStatus": deployment, **status} if deployment else {}
    return {"metadata": metadata, "spec": wanted, "status": said}


def pod(name: str = "head", *, head: bool | None = None, deleting: bool = False, limit: str = "", **status: Any) -> dict[str, Any]:
    """A pod; by its name, the head's or a worker's."""
    kind = "head" if head or (head is None and name == "head") else "worker"
    metadata: dict[str, Any] = {"name": f"{RUN.run_id}-abcde-{name}", "uid": name, "labels": {"ray.io/node-type": kind}}
    if deleting:
        metadata["deletionTimestamp"] = CREATED
    container: dict[str, Any] = {"name": "ray-worker"}
    if limit:
        container["resources"] = {"limits": {"memory": limit}}
    return {"metadata": metadata, "spec": {"nodeName": "node-1", "containers": [container]}, "status": status}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The status of a pod whose container waits."""
    return {"containerStatuses": [{"name": "ray-worker", "image": "img:1", "state": {"waiting": {"reason": reason, "message": message}}}]}


def killed_for_memory() -> dict[str, Any]:
    """The status of a pod whose container took too much."""
    return {
        "containerStatuses": [
            {"name": "ray-worker", "restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"reason": "OOMKilled"}}}
        ]
    }


def event(reason: str, message: str, about: str = RUN.run_id, at: str = CREATED) -> dict[str, Any]:
    return {"reason": reason, "message": message, "lastTimestamp": at, "involvedObject": {"name": about}}


def sight(ray_job: dict[str, Any] | None = None, *pods: dict[str, Any], **more: Any) -> Sight:
    return Sight(ray_job=ray_job, pods=pods, **{"events": (), **more})
