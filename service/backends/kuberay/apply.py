"""Changes what is at the API server, the one place that does. Each action may be repeated."""

import base64
import logging
import time

from lorafleet.errors import LorafleetError
from service.backends.base import RunRequest
from service.backends.kuberay.api import Api, ApiRefusal
from service.backends.kuberay.config import KuberayConfig
from service.backends.kuberay.manifest import STORE_SUFFIX, is_of_run, is_ours, ray_job, run_secret, standing_entries
from service.backends.kuberay.names import MANAGER, object_name
from service.backends.kuberay.objects import AnyObject, Object, RayJob

ENDED = "lorafleet.dev/ended"  # annotation of a RayJob that we end ourselves: REASON message
HANDED_OVER = "lorafleet.dev/handed-over"  # annotation of a standing cluster's head: when its Secret last got a token

log = logging.getLogger(__name__)


def ray_job_path(namespace: str, name: str = "") -> str:
    return f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs" + (f"/{name}" if name else "")


def secret_path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")


async def launch(api: Api, run: RunRequest, config: KuberayConfig) -> RayJob:
    """The run's RayJob, made unless it was made before, and the Secret with its token. May be cut off after any of them.

    Raises LorafleetError NAME_TAKEN when somebody else's object has the name, Refused, and Unavailable.
    """
    wanted = ray_job(run, config)
    namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
    standing = config.standing_cluster
    found = await get_ray_job(api, namespace, name)
    _check_is_ours(found, run, namespace, name)
    if standing is not None:  # before the job: its driver waits for the token, and not for ever
        await _hand_over(api, run, namespace, standing.token_secret)
    if found is None:
        found = await _apply(api, ray_job_path(namespace, name), wanted)
        _check_is_ours(found, run, namespace, name)
    if standing is None:  # after it: its pods wait, and it owns the Secret
        await _create_once(api, secret_path(namespace), run_secret(run, namespace, found["metadata"]["uid"]))
    return found


async def get_ray_job(api: Api, namespace: str, name: str) -> RayJob | None:
    """None: there is none."""
    try:
        return await api.get(ray_job_path(namespace, name))
    except ApiRefusal as error:
        if error.status == 404 and error.cause == "NotFound":
            return None
        raise


async def find(api: Api, namespace: str, run_id: str) -> RayJob | None:
    """The run's RayJob; None also where somebody else's has its name."""
    found = await get_ray_job(api, namespace, object_name(run_id))
    return found if found is not None and is_of_run(found, run_id) else None


async def end(api: Api, job: RayJob, reason: str = "", message: str = "") -> None:
    """Deletes a RayJob that was seen to be a run's; it stays until its pods are gone. `reason` is kept on it for whoever sees
    it go. Another that has taken its name meanwhile has another uid, and is left alone."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    path = ray_job_path(job["metadata"]["namespace"], name)
    noted = {"metadata": {"uid": uid, "annotations": {ENDED: f"{reason} {message}"}}}
    try:
        if reason:
            await api.merge(path, noted, MANAGER)
    except ApiRefusal as error:
        if error.status != 404 and error.cause != "Invalid":  # a uid cannot be changed
            raise
    try:
        await api.delete(path, uid=uid)
    except ApiRefusal as error:
        if error.status != 404 and error.cause != "Conflict":
            raise


def _check_is_ours(found: RayJob | None, run: RunRequest, namespace: str, name: str) -> None:
    if found is not None and not is_ours(found, run):
        told = f"namespace {namespace} has a RayJob {name} that is not this run's; remove it, or give runs a namespace of their own"
        raise LorafleetError(told, reason="NAME_TAKEN", retryable=False)


async def _create_once(api: Api, path: str, wanted: Object) -> None:
    """Unless it is there: then an earlier launch made it, and a run's tokens are as good as each other."""
    try:
        await api.create(path, wanted)
    except ApiRefusal as error:
        if error.status != 409 or error.cause != "AlreadyExists":
            raise


async def _apply(api: Api, path: str, wanted: Object) -> RayJob:
    try:
        return await api.apply(path, wanted, MANAGER)
    except ApiRefusal as error:
        if error.status == 409 and error.cause == "Conflict":  # its fields are another manager's
            told = f"{path} exists and is managed by somebody else: {error.message}"
            raise LorafleetError(told, reason="NAME_TAKEN", retryable=False) from None
        raise


async def _hand_over(api: Api, run: RunRequest, namespace: str, secret: str) -> None:
    """What is secret, among that of others in a standing cluster's Secret, which its head mounts.

    A merge takes no other's entry away. Applied, each run's entry would want a manager of its own, and these stay in the Secret for
    ever: patches took 1.4 s after 185 runs, and some thousands of runs would have been more than an object holds.
    """
    path = secret_path(namespace, secret)
    entries = {"data": {name: base64.b64encode(value.encode()).decode() for name, value in standing_entries(run).items()}}
    try:
        await api.merge(path, entries, MANAGER)
    except ApiRefusal as error:
        if error.status != 404:
            raise
        await _create_once(api, secret_path(namespace), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}})
        await api.merge(path, entries, MANAGER)


async def bring(api: Api, head: AnyObject) -> None:
    """Has the kubelet bring what was handed over into that pod now. By itself it renews what pods mount within a minute or two
    (80 s were measured); a pod whose annotations change is looked at at once. Without effect the run merely waits longer.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/#mounted-configmaps-are-updated-automatically
    """
    metadata = head["metadata"]
    changed = {"metadata": {"uid": metadata["uid"], "annotations": {HANDED_OVER: str(time.time_ns())}}}
    try:
        await api.merge(f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}", changed, MANAGER)
    except LorafleetError as error:
        log.warning("the head %s is not told of a token, which takes its time now: %s", metadata["name"], error)


async def take_back(api: Api, run_id: str, namespace: str, secret: str) -> None:
    """Removes what was handed over."""
    try:
        await api.merge(
            secret_path(namespace, secret), {"data": {object_name(run_id): None, f"{object_name(run_id)}{STORE_SUFFIX}": None}}, MANAGER
        )
    except ApiRefusal as error:
        if error.status != 404:
            raise
