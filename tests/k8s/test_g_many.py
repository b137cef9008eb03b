"""Two hundred jobs, each a RayJob of its own: all end once, nothing stays, and requests to the API server are bounded."""

import os
import re
import time
import urllib.request

from deploy.kubectl import get, port_forward
from lorafleet.states import has_ended
from lorafleet.v1 import training_service_pb2 as pb
from tests.k8s.fleet import Fleet, run_object
from tests.k8s.waiting import until

JOBS = int(os.environ.get("JOBS", "200"))
WITHIN_S = 60 * 60
REQUESTS_PER_JOB = 40  # writes and reads together; watches are one request for all
_COUNT = re.compile(r"^lorafleet_kubernetes_requests_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


def test_two_hundred_jobs_end_once_and_leave_nothing(fleet: Fleet):
    before, started = _num_requests(fleet), time.monotonic()
    names = [fleet.submit(f"many-{number}", steps=3) for number in range(JOBS)]
    until(lambda: all(has_ended(job) for job in fleet.client.list() if job.name in names), WITHIN_S, "an end of all jobs")

    jobs = [fleet.job(name) for name in names]
    assert {pb.JobState.Name(job.state) for job in jobs} == {"JOB_STATE_SUCCEEDED"}
    assert [len(job.attempts) for job in jobs] == [1] * JOBS
    assert len({job.artifact.uri for job in jobs}) == JOBS
    for job in jobs[::20]:
        fleet.succeeded(job.name)

    namespace = fleet.runs_namespace
    until(lambda: not get("rayjob,raycluster,pod", namespace=namespace), 120, "an empty namespace")
    secrets = {secret["metadata"]["name"] for secret in get("secret", namespace=namespace)}
    assert not secrets & {run_object(job) for job in jobs}
    asked = (_num_requests(fleet) - before) / JOBS
    print(f"{JOBS} jobs in {time.monotonic() - started:.0f} s, {asked:.1f} requests to the API server for each")
    assert 0 < asked <= REQUESTS_PER_JOB


def _num_requests(fleet: Fleet) -> float:
    """Of all replicas together, as each tells it."""
    total = 0.0
    for pod in get("pod", namespace=fleet.release.namespace, selector="app.kubernetes.io/component=control-plane"):
        with port_forward(fleet.release.namespace, pod["metadata"]["name"], 7601, kind="pod") as address:
            text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
        total += sum(float(count) for count in _COUNT.findall(text))
    return total
