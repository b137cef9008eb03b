"""What the objects of a run say about it, in one observation with a reason that people can act on. Pure.

Reasons are stable, UPPER_SNAKE. Troubles of pods come first: they tell why where KubeRay only tells that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.backends import driver_message
from service.backends.base import SUSPENDED, Alive, Observation
from service.backends.kuberay import troubles
from service.backends.kuberay.apply import ENDED
from service.backends.kuberay.objects import Pod, RayJob, RayJobStatus
from service.backends.kuberay.troubles import PodTrouble
from service.backends.kuberay.watch import Sight
from service.control.attempts import Gone
from service.control.lifecycle import COMING_UP

OPERATOR_SILENT_S = 30.0  # a RayJob that KubeRay does not take up in this time is waiting for KubeRay
ENDING = "ENDING"


@dataclass(frozen=True, kw_only=True)
class Lost:
    """It cannot go on, and KubeRay does not end it: the backend must."""

    reason: str
    message: str
    ray_job: RayJob = field(repr=False)


def observation(sight: Sight, now: datetime) -> Observation | Lost:
    """What there is to tell."""
    job = sight.ray_job
    if job is None or job["metadata"].get("deletionTimestamp"):
        return _leftover(sight, now)
    status: RayJobStatus = job.get("status") or {}
    match status.get("jobDeploymentStatus", ""):
        case "Complete" | "Failed" | "ValidationFailed":
            return _ended(job, status, sight)
        case "Running":
            return _running(job, sight)
        case _ if job["spec"].get("suspend") and not sight.pods:
            return Alive(waiting=SUSPENDED, message="Kueue holds it back until its queue has room", is_bounded=True)
        case _:
            return _leaving(sight) or _starting(job, status, sight, now)


def has_ended(job: RayJob) -> bool:
    """Whether its driver executes no more."""
    return (job.get("status") or {}).get("jobDeploymentStatus") in {"Complete", "Failed", "ValidationFailed"}


def ended_before(job: RayJob, at: datetime) -> bool:
    """Whether it ended before that time."""
    end = (job.get("status") or {}).get("endTime")
    return has_ended(job) and end is not None and troubles.time_of(end) < at


def _leftover(sight: Sight, now: datetime) -> Observation:
    """Its RayJob is gone or being deleted. What is left of it keeps the next attempt away, but for pods of a dead node."""
    if sight.pods and all(troubles.is_unanswered(pod, now) for pod in sight.pods):
        return _noted(sight.ray_job or sight.departed_ray_job) or Gone(reason="NODE_LOST", message=troubles.unanswered(sight.pods))
    if sight.ray_job is None and not sight.pods:
        return _absent(sight)
    return Alive(waiting=ENDING, message=_ending(sight))


def _noted(job: RayJob | None) -> Gone | None:
    """Why we ended it, if we did."""
    noted = None if job is None else (job["metadata"].get("annotations") or {}).get(ENDED)
    if noted is None:
        return None
    reason, _, message = noted.partition(" ")
    return Gone(reason=reason, message=message)


def _absent(sight: Sight) -> Gone:
    """Nothing of it is there. It may have been seen before."""
    last = sight.departed_ray_job
    if last is None:
        return Gone(reason="RUN_LOST", message="Kubernetes has no RayJob of this run")
    if (noted := _noted(last)) is not None:
        return noted
    if has_ended(last):
        return _ended(last, last.get("status") or {}, sight)
    return Gone(reason="RAYJOB_DELETED", message="somebody deleted the run's RayJob")


def _ended(job: RayJob, status: RayJobStatus, sight: Sight) -> Gone:
    if status.get("jobDeploymentStatus") == "ValidationFailed":
        return Gone(reason="RAYJOB_INVALID", message=f"KubeRay refuses the RayJob: {status.get('message', '')}")
    match status.get("jobStatus"):
        case "SUCCEEDED":
            return Gone(reason="DRIVER_EXITED", message="the driver exited with code 0 and did not report the job's end")
        case "STOPPED":
            return Gone(reason="RUN_STOPPED", message="the run was stopped")
        case _ if status.get("reason") == "PreRunningDeadlineExceeded":
            return _too_late(job, sight)
        case _:
            return _failed(status, sight)


def _too_late(job: RayJob, sight: Sight) -> Gone:
    after = f"not started within {job['spec'].get('preRunningDeadlineSeconds', 0)} s"
    why = troubles.of_start(_num_pods(job), sight.pods, sight.departed_pods, sight.events)
    if why is None:
        return Gone(reason="START_TIMEOUT", message=f"{after}: {_progress(sight.pods)}")
    return Gone(reason=why.reason, message=f"{after}: {why.message}")


def _failed(status: RayJobStatus, sight: Sight) -> Gone:
    """The driver failed. What happened to a pod is why."""
    if (why := troubles.of_end([*sight.pods, *sight.departed_pods])) is not None:
        return Gone(reason=why.reason, message=why.message)
    if status.get("reason") == "AppFailed":
        said = status.get("message")
        return Gone(reason=driver_message.reason(said), message=f"the driver failed; its last lines: {driver_message.last_lines(said)}")
    return Gone(reason="RUN_LOST", message=f"KubeRay gave it up ({status.get('reason') or 'no reason'}): {status.get('message', '')}")


def _running(job: RayJob, sight: Sight) -> Observation | Lost:
    if job["spec"].get("clusterSelector"):
        return _running_on_hosts(job, [pod for pod in sight.hosts if troubles.is_head(pod)])
    heads = [pod for pod in sight.pods if troubles.is_head(pod)]
    if (leaving := _leaving(sight)) is not None:
        return leaving
    if heads and all(troubles.has_died(pod) for pod in heads):
        why = troubles.of_end(heads) or PodTrouble(reason="RAY_HEAD_GONE", message="the pod of its Ray head died")
        return Lost(reason=why.reason, message=why.message, ray_job=job)
    past = [pod for pod in sight.departed_pods if troubles.is_head(pod)]
    if not heads and (why := troubles.of_end(past) or troubles.of_leaving(past)) is not None:
        return Lost(reason=why.reason, message=why.message, ray_job=job)
    return Alive()


def _running_on_hosts(job: RayJob, heads: Sequence[Pod]) -> Observation | Lost:
    """On a standing cluster. KubeRay would give the job to a head that has taken the place of the one it began on."""
    leaving = troubles.of_leaving(pod for pod in heads if pod["metadata"].get("deletionTimestamp"))
    if leaving is not None:
        return Alive(leaving=leaving.reason, message=leaving.message)
    if not heads:  # it may go on there all the same, and KubeRay has given it to one
        told = "no head of the standing cluster is seen; do its pods have the label app.kubernetes.io/managed-by: lorafleet?"
        return Alive(waiting="STANDING_CLUSTER_NOT_SEEN", message=told)
    began = troubles.time_of(job["metadata"]["creationTimestamp"])
    if any((up_since := troubles.up_since(pod)) is not None and up_since <= began for pod in heads):
        return Alive()
    return Lost(reason="RAY_HEAD_GONE", message="the head of the standing cluster is not the one that the run began on", ray_job=job)


def _leaving(sight: Sight) -> Alive | None:
    """A pod is being taken away from a run that nobody ends: drained, evicted, preempted, or the run suspended."""
    why = troubles.of_leaving(pod for pod in sight.pods if pod["metadata"].get("deletionTimestamp"))
    if why is None:
        return None
    if sight.ray_job is not None and sight.ray_job["spec"].get("suspend"):
        return Alive(leaving=SUSPENDED, message="Kueue takes its place for another workload")
    return Alive(leaving=why.reason, message=why.message)


def _starting(job: RayJob, status: RayJobStatus, sight: Sight, now: datetime) -> Alive:
    """Bounded by preRunningDeadlineSeconds, of which KubeRay takes care: unless it does not look."""
    waited = now - troubles.time_of(job["metadata"]["creationTimestamp"])
    if not status.get("jobDeploymentStatus") and waited > timedelta(seconds=OPERATOR_SILENT_S):
        told = "KubeRay has not taken it up; is its operator running, and does it watch this namespace?"
        return Alive(waiting="OPERATOR_SILENT", message=told)
    why = troubles.of_start(_num_pods(job), sight.pods, sight.departed_pods, sight.events)
    if why is None:
        return Alive(waiting=COMING_UP, message=_progress(sight.pods), is_bounded=True)
    return Alive(waiting=why.reason, message=why.message, is_bounded=True)


def _progress(pods: Sequence[Pod]) -> str:
    ready = sum(troubles.is_ready(pod) for pod in pods)
    return f"{ready} of {len(pods)} pods are ready" if pods else "its pods are not made yet"


def _ending(sight: Sight) -> str:
    num = len(sight.pods)
    return f"{num} pod{'s' if num != 1 else ''} of it {'are' if num != 1 else 'is'} still there" if num else "its objects are being deleted"


def _num_pods(job: RayJob) -> int:
    """How many pods it is to have; none of its own on a standing cluster."""
    cluster = job["spec"].get("rayClusterSpec")
    return 0 if cluster is None else 1 + sum(group.get("replicas", 0) for group in cluster.get("workerGroupSpecs", []))
