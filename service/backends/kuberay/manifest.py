"""Builds a run's Kubernetes objects: its RayJob, and the Secret with its token. Pure: same input, same objects."""

import json
import shlex

from lorafleet.errors import InvalidInput
from service.backends.base import RunRequest
from service.backends.kuberay import pods
from service.backends.kuberay.config import KuberayConfig, PodProfile
from service.backends.kuberay.names import INSTANCE, MANAGED_BY, MANAGER, RUN, labels, object_name
from service.backends.kuberay.objects import AnyObject, Object
from service.backends.regions import regions

API_VERSION = "ray.io/v1"
RUN_ID = "lorafleet.dev/run-id"  # annotation: the id in full
TOKEN_KEY = "token"
HANDED_OVER_WITHIN_S = 180  # a kubelet brings a changed Secret into a pod that has mounted it within two minutes
STORE_SUFFIX = ".store"  # after a run's name: its store credentials, in a standing cluster's Secret
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
# Without it KubeRay replaces a head that died, and gives the job to the new one: a second attempt behind our back.
NO_SECOND_HEAD = "ray.io/disable-provisioned-head-restart"


def ray_job(run: RunRequest, config: KuberayConfig) -> Object:
    """The RayJob of a run. Raises InvalidInput (UNKNOWN_PROFILE)."""
    spec: Object = {
        "submissionMode": "HTTPMode",  # in submitter modes a dropped log stream fails a healthy job (kuberay#4921)
        "backoffLimit": 0,  # retries are ours: two places that retry would break "at most one live attempt"
        "jobId": run.run_id,
        "entrypoint": entrypoint(run, config),
        "preRunningDeadlineSeconds": config.pre_running_deadline_seconds,
    }
    if config.standing_cluster is None:
        spec |= {
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": config.shutdown_ttl_seconds,
            "rayClusterSpec": ray_cluster(run, config, profile_of(run, config)),
        }
    else:
        spec["clusterSelector"] = {"ray.io/cluster": config.standing_cluster.name}
    return {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": {
            "name": object_name(run.run_id),
            "namespace": config.namespace_of(run.tenant),
            "labels": {**labels(run), **_kueue(run, config)},
            "annotations": {RUN_ID: run.run_id, NO_SECOND_HEAD: "true"},
        },
        "spec": spec,
    }


def ray_cluster(run: RunRequest, config: KuberayConfig, profile: PodProfile) -> Object:
    """The cluster that the run gets to itself: a head, and as many workers as the spec asks for, whole or not at all."""
    num = run.cluster.num_workers
    return {
        "rayVersion": config.ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": pods.head_start_params(profile), "template": pods.head_pod(run, config, profile)},
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                **dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), num),
                "rayStartParams": pods.worker_start_params(run, profile),
                "template": pods.worker_pod(run, config, profile),
            }
        ],
    }


def run_secret(run: RunRequest, namespace: str, ray_job_uid: str) -> Object:
    """The run's token, and its tenant's own store credentials where it has some. It goes with the RayJob."""
    owner = {"apiVersion": API_VERSION, "kind": "RayJob", "name": object_name(run.run_id), "uid": ray_job_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": object_name(run.run_id),
            "namespace": namespace,
            "labels": labels(run),
            "ownerReferences": [owner],
        },
        "stringData": {TOKEN_KEY: run.token, **run.store_env},
    }


def profile_of(run: RunRequest, config: KuberayConfig) -> PodProfile:
    """The profile that the spec names. Raises InvalidInput (UNKNOWN_PROFILE)."""
    profile = config.profiles.get(run.cluster.profile)
    if profile is None:
        told = f'cluster.profile: "{run.cluster.profile}" is not configured; there are: {", ".join(sorted(config.profiles))}'
        raise InvalidInput(told, reason="UNKNOWN_PROFILE")
    return profile


def entrypoint(run: RunRequest, config: KuberayConfig) -> str:
    """The driver's command line. It holds no secret.

    What the driver writes goes to Ray, and to the head container's own output too, each line under the run's id: there the
    API server can read it, with no way into the cluster and no token of Ray's.
    """
    standing = config.standing_cluster
    token = f"{pods.TOKEN_DIR}/{TOKEN_KEY}" if standing is None else f"{standing.token_path}/{object_name(run.run_id)}"
    credentials = ["--store-credentials-file", f"{token}{STORE_SUFFIX}"] if standing is not None and run.store_env else []
    driver = shlex.join(["python", "-m", "trainer.run", "--manifest", run.manifest_uri, *regions(run), "--token-file", token, *credentials])
    line = f"s/^/{log_prefix(run.run_id)}/"
    wait = "" if standing is None else f"for _ in $(seq {HANDED_OVER_WITHIN_S}); do [ -e {token} ] && break; sleep 1; done; "
    script = f"{{ {wait}{driver}; }} 2>&1 | tee -p >(sed -u {shlex.quote(line)} > /proc/1/fd/1)"
    return shlex.join(["bash", "-o", "pipefail", "-c", script])


def standing_entries(run: RunRequest) -> dict[str, str]:
    """What a standing cluster's Secret has for the run."""
    name = object_name(run.run_id)
    store = {f"{name}{STORE_SUFFIX}": json.dumps(dict(run.store_env))} if run.store_env else {}
    return {name: run.token, **store}


def log_prefix(run_id: str) -> str:
    """What each line of the driver begins with in the head container's output."""
    return f"{object_name(run_id)}| "


def driver_line(line: bytes, prefix: bytes) -> bytes:
    """What the driver wrote, out of a line of the head container; nothing of a line that it did not write."""
    return line.removeprefix(prefix) if line.startswith(prefix) else b""


def is_ours(found: AnyObject, run: RunRequest) -> bool:
    """Whether the object of that name is the one that we made for this run."""
    return is_of_run(found, run.run_id) and (found["metadata"].get("labels") or {}).get(INSTANCE) == run.instance


def is_of_run(found: AnyObject, run_id: str) -> bool:
    """Whether the object of that name is labelled as the run's."""
    on_it = found["metadata"].get("labels") or {}
    return on_it.get(RUN) == object_name(run_id) and on_it.get(MANAGED_BY) == MANAGER


def _kueue(run: RunRequest, config: KuberayConfig) -> dict[str, str]:
    if config.kueue is None:
        return {}
    found = {QUEUE_LABEL: config.kueue.queue}
    if name := config.kueue.priority_classes.get(run.priority_class):
        found[PRIORITY_LABEL] = name
    return found
