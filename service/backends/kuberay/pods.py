"""Builds the pods of a run: the Ray head with the driver, and the workers. Pure. All of them pass PodSecurity's `restricted`."""

import math
from collections.abc import Mapping

from lorafleet.contract.pod_dir import POD_DIR_ENV
from lorafleet.spec import ClusterSpec
from service.backends.base import RunRequest
from service.backends.kuberay.config import KuberayConfig, Placing, PodProfile
from service.backends.kuberay.names import labels, object_name
from service.backends.kuberay.objects import Object
from service.backends.kuberay.quantities import cpus, gib, size_bytes

HOME = "/var/lib/lorafleet"  # beside /tmp all that a container may write to
TOKEN_DIR = "/var/run/lorafleet"
STORE_CA_DIR = "/var/run/lorafleet-store-ca"
POD_DIR = "/tmp/lorafleet"  # where a pod that must go leaves word for its trainer
DISK = "ephemeral-storage"
HEAD, WORKER = "ray-head", "ray-worker"  # the containers
RAYS_LEAST_OBJECT_STORE_BYTES = 80 * 2**20
STOP_SIGNAL_WAIT_S = 10  # from a driver's SIGINT to its SIGKILL

# Makes the trainer save a checkpoint and end, and waits for that; at once where none is at work.
_PRE_STOP: Object = {"exec": {"command": ["python", "-m", "trainer.eviction"]}}


def head_pod(run: RunRequest, config: KuberayConfig, profile: PodProfile) -> Object:
    """The template of the head's pod."""
    token = {"name": "run-token", "secret": {"secretName": object_name(run.run_id), "defaultMode": 0o440}}
    container: Object = {
        **_container(HEAD, run, config, profile, profile.head),
        "ports": [{"name": name, "containerPort": port} for name, port in (("gcs", 6379), ("dashboard", 8265), ("client", 10001))],
        "resources": _resources({"cpu": profile.head.cpu, "memory": profile.head.memory, **_disk(profile.head)}, limited=("memory", DISK)),
    }
    container["env"] += [_plain("RAY_JOB_STOP_SIGNAL", "SIGINT"), _plain("RAY_JOB_STOP_WAIT_TIME_S", str(STOP_SIGNAL_WAIT_S))]
    container["volumeMounts"].append({"name": "run-token", "mountPath": TOKEN_DIR, "readOnly": True})
    template = _template(run, config, profile.head, container)
    template["spec"]["volumes"].append(token)
    # A head that comes back would be given the job again, behind the service's back (KubeRay, in HTTPMode).
    template["spec"]["restartPolicy"] = "Never"
    return template


def worker_pod(run: RunRequest, config: KuberayConfig, profile: PodProfile) -> Object:
    """The template of a worker's pod."""
    requests = {"cpu": cpus(run.cluster.cpus_per_worker * profile.worker.cpu_request_fraction)}
    if memory := worker_memory(run.cluster, profile):
        requests["memory"] = memory
    if gpus := worker_gpus(run.cluster):
        requests[config.gpu_resource] = str(gpus)
    container = {
        **_container(WORKER, run, config, profile, profile.worker),
        "resources": _resources(requests | _disk(profile.worker), limited=("memory", DISK, config.gpu_resource)),
    }
    return _template(run, config, profile.worker, container)


def head_start_params(profile: PodProfile) -> dict[str, str]:
    """What `ray start` is told on the head: nothing is scheduled there but the driver."""
    store = {"object-store-memory": str(_object_store_bytes(profile.head))}
    return {"dashboard-host": "0.0.0.0", "num-cpus": "0", "num-gpus": "0", "disable-usage-stats": "true", **store}


def worker_start_params(run: RunRequest, profile: PodProfile) -> dict[str, str]:
    """What `ray start` is told on a worker: exactly what the trainer asks Ray for."""
    params = {
        "num-cpus": str(math.ceil(run.cluster.cpus_per_worker)),
        "num-gpus": str(worker_gpus(run.cluster)),
        "object-store-memory": str(_object_store_bytes(profile.worker)),
        "disable-usage-stats": "true",
    }
    if memory := worker_memory(run.cluster, profile):
        params["memory"] = str(size_bytes(memory))
    return params


def worker_gpus(cluster: ClusterSpec) -> int:
    """Devices are whole."""
    return math.ceil(cluster.gpus_per_worker)


def worker_memory(cluster: ClusterSpec, profile: PodProfile) -> str | None:
    """What the spec asks for, else what the profile has for such; None: neither says."""
    return profile.worker.memory if cluster.memory_gib_per_worker is None else gib(cluster.memory_gib_per_worker)


def _container(name: str, run: RunRequest, config: KuberayConfig, profile: PodProfile, placing: Placing) -> Object:
    return {
        "name": name,
        "image": profile.image or config.image,
        "imagePullPolicy": config.image_pull_policy,
        "env": _env(run, config),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "home", "mountPath": HOME},
            {"name": "shm", "mountPath": "/dev/shm"},
            *([{"name": "store-ca", "mountPath": STORE_CA_DIR, "readOnly": True}] if config.store_ca_secret else []),
            *placing.volume_mounts,
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "lifecycle": {"preStop": _PRE_STOP},
    }


def _template(run: RunRequest, config: KuberayConfig, placing: Placing, container: Object) -> Object:
    spec: Object = {
        "serviceAccountName": config.service_account_of(run.tenant),
        "automountServiceAccountToken": False,  # web identity is given its own token by whoever provides it
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": config.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": config.run_as_user,
            "runAsGroup": config.run_as_user,
            "fsGroup": config.run_as_user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "home", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": placing.shm_size}},
            *([_store_ca(config.store_ca_secret)] if config.store_ca_secret else []),
            *placing.volumes,
        ],
        "containers": [container],
        **_placed(placing),
    }
    if config.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    metadata: Object = {"labels": {**placing.labels, **labels(run)}}
    if placing.annotations:
        metadata["annotations"] = placing.annotations
    return {"metadata": metadata, "spec": spec}


def _store_ca(secret: str) -> Object:
    return {"name": "store-ca", "secret": {"secretName": secret, "items": [{"key": "ca.crt", "path": "ca.crt"}], "defaultMode": 0o440}}


def _placed(placing: Placing) -> Object:
    said = {
        "nodeSelector": placing.node_selector,
        "tolerations": list(placing.tolerations),
        "affinity": placing.affinity,
        "topologySpreadConstraints": list(placing.topology_spread_constraints),
        "priorityClassName": placing.priority_class_name,
        "runtimeClassName": placing.runtime_class_name,
    }
    return {name: value for name, value in said.items() if value}


def _env(run: RunRequest, config: KuberayConfig) -> list[Object]:
    ours = {
        "HOME": HOME,
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        POD_DIR_ENV: POD_DIR,
    }
    if config.store_ca_secret:
        ours["AWS_CA_BUNDLE"] = f"{STORE_CA_DIR}/ca.crt"
    env = [_plain(name, value) for name, value in {**ours, **config.env}.items()]
    if run.store_env:  # the tenant's own go before those of the place
        return env + [_from_secret(name, object_name(run.run_id)) for name in sorted(run.store_env)]
    if secret := config.store_secret_of(run.tenant):
        env += [_from_secret(name, secret) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    return env


def _plain(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def _from_secret(name: str, secret: str) -> Object:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}


def _resources(requests: Mapping[str, str], *, limited: tuple[str, ...]) -> Object:
    """CPUs are no limit: what nobody else needs may be used."""
    limits = {name: value for name, value in requests.items() if name in limited}
    return {"requests": dict(requests), "limits": limits} if limits else {"requests": dict(requests)}


def _disk(placing: Placing) -> dict[str, str]:
    return {} if placing.ephemeral_storage is None else {DISK: placing.ephemeral_storage}


def _object_store_bytes(placing: Placing) -> int:
    """Half of /dev/shm: Ray falls back to the disk if it asks for all of it, and others want some."""
    return max(RAYS_LEAST_OBJECT_STORE_BYTES, size_bytes(placing.shm_size) // 2)
