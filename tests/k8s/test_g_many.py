"""Many jobs, each a RayJob of its own: all end once, nothing stays, and requests to the API server are bounded.

Two hundred go onto a standing RayCluster: a RayCluster to each would be four hundred starts of Ray, too long for a machine of two
cores. A few with a RayCluster each show what such jobs ask of the API server.
"""

import os
import re
import time
import urllib.request

from deploy.kubectl import get, port_forward
from lorafleet.states import has_ended
from lorafleet.v1 import training_service_pb2 as pb
from service.backends.kuberay.access import RULES, of_standing
from tests.k8s import rights
from tests.k8s.fleet import Fleet, run_object
from tests.k8s.standing import TOKENS, standing_cluster
from tests.k8s.waiting import until

JOBS = int(os.environ.get("JOBS", "200"))
JOBS_WITH_CLUSTERS = 8
PLACES = 32
WITHIN_S = 60 * 60
REQUESTS_PER_JOB = 40  # writes and reads together; watches are one request for all
_COUNT = re.compile(r"^lorafleet_kubernetes_requests_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


def test_jobs_with_a_ray_cluster_each_end_once_and_leave_nothing(fleet: Fleet):
    jobs = _all_end_once(fleet, "few", JOBS_WITH_CLUSTERS, labels={})
    namespace = fleet.runs_namespace
    until(lambda: not get("rayjob,raycluster,pod", namespace=namespace), 120, "an empty namespace")
    secrets = {secret["metadata"]["name"] for secret in get("secret", namespace=namespace)}
    assert not secrets & {run_object(job) for job in jobs}


def test_two_hundred_jobs_on_a_standing_cluster_end_once_and_leave_nothing(fleet: Fleet):
    namespace = fleet.runs_namespace
    with standing_cluster(fleet.release, PLACES) as standing:
        may = rights.granted(rights.control_plane(fleet.release), namespace, fleet.release)
        assert may == rights.of([*RULES, *of_standing(TOKENS)]), "and of all Secrets it changes that of tokens alone"
        until(lambda: all(pod.startswith(f"{standing}-") for pod in _pods(namespace)), 120, "an end of the pods of jobs before")
        pods = _pods(namespace)
        _all_end_once(fleet, "many", JOBS, labels={"workers": "none"})
        until(lambda: not get("rayjob", namespace=namespace), 120, "an end of all RayJobs")
        until(lambda: not get("secret", namespace=namespace, name=TOKENS).get("data"), 120, "an end of all tokens")
        assert [each["metadata"]["name"] for each in get("raycluster", namespace=namespace)] == [standing]
        assert _pods(namespace) == pods, "those that stood there before, and no others"


def _all_end_once(fleet: Fleet, name: str, num: int, labels: dict[str, str]) -> list[pb.TrainingJob]:
    before, started = _num_requests(fleet), time.monotonic()
    names = [fleet.submit(f"{name}-{number}", steps=3, cluster={"cpus_per_worker": 1}, labels=labels) for number in range(num)]
    # Not often: a list of all jobs is work for the same two cores.
    until(lambda: all(has_ended(job) for job in fleet.client.list() if job.name in names), WITHIN_S, "an end of all jobs", every_s=5)
    took = time.monotonic() - started

    jobs = [fleet.job(name) for name in names]
    assert {pb.JobState.Name(job.state) for job in jobs} == {"JOB_STATE_SUCCEEDED"}
    assert [len(job.attempts) for job in jobs] == [1] * num
    assert len({job.artifact.uri for job in jobs}) == num
    for job in jobs[::20]:
        fleet.succeeded(job.name)
    until(lambda: not fleet.ray_jobs(), 120, "an end of all RayJobs")
    asked = (_num_requests(fleet) - before) / num
    print(f"{num} jobs in {took:.0f} s, {asked:.1f} requests to the API server for each")
    assert 0 < asked <= REQUESTS_PER_JOB
    return jobs


def _pods(namespace: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in get("pod", namespace=namespace)}


def _num_requests(fleet: Fleet) -> float:
    """Of all replicas together, as each tells it."""
    total = 0.0
    for pod in get("pod", namespace=fleet.release.namespace, selector="app.kubernetes.io/component=control-plane"):
        with port_forward(fleet.release.namespace, pod["metadata"]["name"], 7601, kind="pod") as address:
            text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
        total += sum(float(count) for count in _COUNT.findall(text))
    return total
