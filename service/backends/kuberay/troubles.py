"""Tells what is wrong with the pods of a run, from their status and from events. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.backends.kuberay.objects import Condition, ContainerStatus, Event, Pod

NODE_TYPE = "ray.io/node-type"
# Beyond its grace period: a kubelet that has not ended a pod by then is dead or cut off. Should it come back with the run still
# at work, the run's next report is refused and it stops itself.
UNANSWERED_S = 300.0
MAX_WORDS = 400  # characters of what Kubernetes says

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_NOT_MADE = {"FailedCreate", "FailedToCreateHeadPod", "FailedToCreateWorkerPod", "FailedToCreateRayCluster"}
_NOT_MOUNTED = {"FailedMount", "FailedAttachVolume"}


@dataclass(frozen=True, kw_only=True)
class PodTrouble:
    """Why: stable, and for people."""

    reason: str
    message: str


def of_start(num_pods: int, pods: Sequence[Pod], departed: Sequence[Pod], events: Sequence[Event]) -> PodTrouble | None:
    """Why it does not begin. What keeps one of its `num_pods` from being made comes first: those that are there only wait for it."""
    not_made = _not_made(events) if len(pods) < num_pods else None
    found = [not_made, *(_unplaced(pod) for pod in pods), *(_container(pod) for pod in pods), _not_mounted(pods, events)]
    return next((trouble for trouble in found if trouble is not None), None) or of_end([*pods, *departed])


def of_end(pods: Iterable[Pod]) -> PodTrouble | None:
    """What ended pods before their time: memory, eviction, a lost node."""
    pods = list(pods)
    found = [*(_out_of_memory(pod) for pod in pods), *(_evicted(pod) for pod in pods), *(_node_lost(pod) for pod in pods)]
    return next((trouble for trouble in found if trouble is not None), None)


def of_leaving(pods: Iterable[Pod]) -> PodTrouble | None:
    """Why pods are being taken away, as far as they tell."""
    pods = list(pods)
    if not pods:
        return None
    for pod in pods:
        target = _condition(pod, "DisruptionTarget")
        if target is not None and target.get("status") == "True":
            return PodTrouble(reason="EVICTED", message=f"{role(pod)} is evicted ({target.get('reason')}): {_words(target.get('message'))}")
    return PodTrouble(reason="POD_DELETED", message=f"{role(pods[0])} ({pods[0]['metadata']['name']}) is being deleted")


def is_head(pod: Pod) -> bool:
    return (pod["metadata"].get("labels") or {}).get(NODE_TYPE) == "head"


def is_ready(pod: Pod) -> bool:
    ready = _condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def has_died(pod: Pod) -> bool:
    """Its containers run no more, or are not those that it began with."""
    status = pod.get("status") or {}
    return status.get("phase") in {"Failed", "Succeeded"} or any(each.get("restartCount") for each in _containers(pod))


def is_unanswered(pod: Pod, now: datetime) -> bool:
    """Whether its node should have ended it long ago; `deletionTimestamp` has the grace period in it."""
    end = pod["metadata"].get("deletionTimestamp")
    return end is not None and now - time_of(end) > timedelta(seconds=UNANSWERED_S)


def unanswered(pods: Iterable[Pod]) -> str:
    """Of pods that nobody ends."""
    nodes = sorted({(pod.get("spec") or {}).get("nodeName", "unknown") for pod in pods})
    return f"the node of its pods ({', '.join(nodes)}) does not answer: they were told to end, and were not seen to"


def up_since(pod: Pod) -> datetime | None:
    """Since when its container runs; None: it does not."""
    running = [(each.get("state") or {}).get("running") for each in (pod.get("status") or {}).get("containerStatuses") or []]
    return time_of(running[0]["startedAt"]) if running and running[0] else None


def role(pod: Pod) -> str:
    """The pod as people call it."""
    return "the head's pod" if is_head(pod) else "a worker's pod"


def time_of(text: str) -> datetime:
    """Kubernetes' times."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _not_made(events: Sequence[Event]) -> PodTrouble | None:
    told = [event.get("message", "") for event in _newest_first(events) if event.get("reason") in _NOT_MADE]
    words = [each for each in told if "already exists" not in each]  # KubeRay looked before it had heard of its own object
    if not words:
        return None
    told = _words(words[0])
    if "exceeded quota" in told:
        return PodTrouble(reason="QUOTA_EXCEEDED", message=f"the namespace's quota has no room for a pod: {_after('exceeded quota', told)}")
    if "violates PodSecurity" in told:
        return PodTrouble(
            reason="POD_SECURITY", message=f"the namespace's PodSecurity refuses a pod: {_after('violates PodSecurity', told)}"
        )
    if "denied the request" in told or "denied request" in told or "admission webhook" in told:
        return PodTrouble(reason="WEBHOOK_REFUSED", message=f"a webhook refuses a pod: {_after('admission webhook', told)}")
    return PodTrouble(reason="POD_NOT_MADE", message=f"a pod cannot be made: {told}")


def _unplaced(pod: Pod) -> PodTrouble | None:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled is None or scheduled.get("status") != "False":
        return None
    if scheduled.get("reason") == "SchedulingGated":
        return PodTrouble(reason="SCHEDULING_GATED", message=f"{role(pod)} waits for whoever has gated its scheduling")
    return PodTrouble(reason="UNSCHEDULABLE", message=f"{role(pod)} finds no node: {_words(scheduled.get('message'))}")


def _container(pod: Pod) -> PodTrouble | None:
    for each in _containers(pod):
        waiting = (each.get("state") or {}).get("waiting") or {}
        reason, words = waiting.get("reason", ""), _words(waiting.get("message"))
        if reason in _PULL:
            return PodTrouble(
                reason="IMAGE_PULL_FAILED", message=f"{role(pod)} does not get its image {each.get('image')} ({reason}): {words}"
            )
        if reason in _CONFIG:
            return PodTrouble(reason="CONTAINER_NOT_STARTED", message=f"{role(pod)} does not start ({reason}): {words}")
        if reason == "CrashLoopBackOff":
            return _out_of_memory(pod) or _crash(pod, each)
    return None


def _crash(pod: Pod, container: ContainerStatus) -> PodTrouble:
    last = (container.get("lastState") or {}).get("terminated") or {}
    ended = f"exit code {last.get('exitCode')}" if last else "no exit code"
    return PodTrouble(reason="CRASH_LOOP", message=f"container {container['name']} of {role(pod)} ends again and again ({ended})")


def _not_mounted(pods: Sequence[Pod], events: Sequence[Event]) -> PodTrouble | None:
    """Only while a pod has no container yet: a mount that failed once may have come right."""
    waiting = {pod["metadata"]["name"] for pod in pods if not _containers(pod) or not any(_has_begun(each) for each in _containers(pod))}
    for event in _newest_first(events):
        if event.get("reason") in _NOT_MOUNTED and event["involvedObject"].get("name") in waiting:
            return PodTrouble(reason="VOLUME_NOT_READY", message=f"a pod does not get a volume: {_words(event.get('message'))}")
    return None


def _has_begun(container: ContainerStatus) -> bool:
    state = container.get("state") or {}
    return "running" in state or "terminated" in state


def _out_of_memory(pod: Pod) -> PodTrouble | None:
    for each in _containers(pod):
        for state in (each.get("state"), each.get("lastState")):
            if ((state or {}).get("terminated") or {}).get("reason") == "OOMKilled":
                limit = _memory_limit(pod, each["name"])
                told = f"container {each['name']} of {role(pod)} took more than its memory limit{f' of {limit}' if limit else ''}"
                return PodTrouble(reason="OOM_KILLED", message=f"{told} and was killed")
    return None


def _memory_limit(pod: Pod, container: str) -> str:
    spec = pod.get("spec") or {}
    for each in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        if each["name"] == container:
            return ((each.get("resources") or {}).get("limits") or {}).get("memory", "")
    return ""


def _evicted(pod: Pod) -> PodTrouble | None:
    status = pod.get("status") or {}
    if status.get("reason") == "Evicted" or (status.get("phase") == "Failed" and _is_true(pod, "DisruptionTarget")):
        target = _condition(pod, "DisruptionTarget") or {}
        told = _words(status.get("message") or target.get("message"))
        return PodTrouble(reason="EVICTED", message=f"{role(pod)} was evicted from its node: {told}")
    return None


def _node_lost(pod: Pod) -> PodTrouble | None:
    reason = (pod.get("status") or {}).get("reason")
    if reason in {"NodeLost", "NodeShutdown", "Terminated", "Shutdown", "NodeAffinity"}:
        node = (pod.get("spec") or {}).get("nodeName", "its node")
        return PodTrouble(reason="NODE_LOST", message=f"the node {node} of {role(pod)} went away ({reason})")
    return None


def _containers(pod: Pod) -> list[ContainerStatus]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _condition(pod: Pod, kind: str) -> Condition | None:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def _is_true(pod: Pod, kind: str) -> bool:
    condition = _condition(pod, kind)
    return condition is not None and condition.get("status") == "True"


def _newest_first(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", reverse=True)


def _words(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "no message").strip()[:MAX_WORDS]


def _after(mark: str, text: str) -> str:
    """From the mark on: what is before it only says which object."""
    at = text.find(mark)
    return text[max(0, at) :]
