"""What is changed at the API server: each action may be repeated, and none touches what is somebody else's."""

import base64
import copy
from typing import Any

import pytest

from lorafleet.errors import LorafleetError
from service.backends.base import RunRef
from service.backends.kuberay import apply
from service.backends.kuberay.apply import ray_job_path, secret_path
from service.backends.kuberay.backend import KubeRay
from tests.service.backends.kuberay.memory_api import MemoryApi
from tests.service.backends.kuberay.objects import RUN, config

JOB = ray_job_path("runs", RUN.run_id)
SECRET = secret_path("runs", RUN.run_id)
TOKENS = secret_path("runs", "lorafleet-run-tokens")
STANDING = config(standingCluster={"name": "warm", "namespace": "runs"})


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


@pytest.fixture
async def backend(api: MemoryApi) -> KubeRay:
    return KubeRay(config(), api)


async def test_a_launch_makes_the_job_and_its_secret_and_a_repeated_one_changes_nothing(api: MemoryApi):
    await apply.launch(api, RUN, config())
    before = {path: api.objects[path] for path in (JOB, SECRET)}
    await apply.launch(api, RUN, config())
    assert {path: api.objects[path] for path in (JOB, SECRET)} == before
    assert before[SECRET]["metadata"]["ownerReferences"][0]["uid"] == before[JOB]["metadata"]["uid"]


async def test_a_secret_is_made_and_never_changed(api: MemoryApi):
    await apply.launch(api, RUN, config())
    await apply.launch(api, RUN, config())
    assert [verb for verb, path in api.changes if "/secrets/" in path] == ["create", "create"]


async def test_a_standing_cluster_has_a_runs_token_before_the_job_that_waits_for_it(api: MemoryApi):
    """Made the other way round, launches that were cut off between the two left drivers that waited in vain."""
    api.objects[TOKENS] = {"metadata": {"name": "lorafleet-run-tokens", "uid": "of-tokens"}, "data": {"another-run": "eA=="}}
    await apply.launch(api, RUN, STANDING)
    assert api.changes == [("merge", TOKENS), ("apply", JOB)]
    assert api.objects[TOKENS]["data"] == {"another-run": "eA==", RUN.run_id: base64.b64encode(RUN.token.encode()).decode()}
    await apply.take_back(api, RUN.run_id, "runs", "lorafleet-run-tokens")
    assert api.objects[TOKENS]["data"] == {"another-run": "eA=="}


async def test_the_secret_of_tokens_is_made_where_it_is_not(api: MemoryApi):
    await apply.launch(api, RUN, STANDING)
    assert list(api.objects[TOKENS]["data"]) == [RUN.run_id]


HEAD = {"metadata": {"name": "warm-head-x", "namespace": "runs", "uid": "uid-of-head"}}
HEAD_PATH = "/api/v1/namespaces/runs/pods/warm-head-x"


async def test_the_head_of_a_standing_cluster_is_changed_so_that_its_kubelet_looks(api: MemoryApi):
    api.objects[HEAD_PATH] = copy.deepcopy(HEAD)
    changes = set()
    for _ in range(2):
        await apply.bring(api, HEAD)
        changes.add(api.objects[HEAD_PATH]["metadata"]["annotations"][apply.HANDED_OVER])
    assert len(changes) == 2, "each time to another value"


@pytest.mark.parametrize("there", [None, {"metadata": {**HEAD["metadata"], "uid": "another"}}])
async def test_a_head_that_is_gone_or_another_by_now_is_no_trouble(api: MemoryApi, there: dict[str, Any] | None):
    if there is not None:
        api.objects[HEAD_PATH] = there
    await apply.bring(api, HEAD)
    assert "annotations" not in (there or {"metadata": {}})["metadata"]


async def test_a_launch_on_a_standing_cluster_brings_the_token_into_its_head(api: MemoryApi):
    """After all else: by then the kubelet has heard of the changed Secret."""
    labels = {"ray.io/cluster": "warm", "app.kubernetes.io/managed-by": "lorafleet"}
    head, worker = (
        {"metadata": {**HEAD["metadata"], "name": kind, "uid": kind, "labels": {**labels, "ray.io/node-type": kind}}}
        for kind in ("head", "worker")
    )
    api.listed("/api/v1/namespaces/runs/pods", head, worker)
    api.listed(ray_job_path("runs"))
    api.listed("/api/v1/namespaces/runs/events")
    api.objects[TOKENS] = {"metadata": {"name": "lorafleet-run-tokens", "uid": "of-tokens"}}
    backend = KubeRay(STANDING, api)
    await backend.launch(RUN)
    await backend.close()
    assert [path for _, path in api.changes] == [TOKENS, JOB, "/api/v1/namespaces/runs/pods/head"]


async def test_a_standing_cluster_gets_no_token_for_somebody_elses_job(api: MemoryApi):
    api.objects[JOB] = FOREIGN
    with pytest.raises(LorafleetError):
        await apply.launch(api, RUN, STANDING)
    assert api.changes == []


async def test_what_is_stopped_is_deleted_and_says_why(api: MemoryApi, backend: KubeRay):
    await apply.launch(api, RUN, config())
    await backend.stop(RunRef(run_id=RUN.run_id, handle="runs"))
    await backend.stop(RunRef(run_id=RUN.run_id, handle="runs"))
    assert JOB not in api.objects
    assert api.changes[-2:] == [("merge", JOB), ("delete", JOB)]


FOREIGN = {"metadata": {"name": RUN.run_id, "uid": "theirs", "labels": {}}, "status": {"jobDeploymentStatus": "Complete"}}


@pytest.mark.parametrize("handle", ["runs", None])
@pytest.mark.parametrize("foreign", [FOREIGN, {**FOREIGN, "metadata": {**FOREIGN["metadata"], "labels": None}}])
async def test_a_job_of_that_name_that_is_somebody_elses_is_left_alone(
    api: MemoryApi, backend: KubeRay, handle: str | None, foreign: dict[str, Any]
):
    api.objects[JOB] = foreign
    with pytest.raises(LorafleetError) as caught:
        await apply.launch(api, RUN, config())
    assert caught.value.reason == "NAME_TAKEN"
    await backend.stop(RunRef(run_id=RUN.run_id, handle=handle))
    await backend.forget(RunRef(run_id=RUN.run_id, handle=handle))
    assert api.objects == {JOB: foreign}
    assert api.changes == []


async def test_a_job_that_took_the_place_of_ours_meanwhile_is_left_alone(api: MemoryApi):
    await apply.launch(api, RUN, config())
    ours = await apply.find(api, "runs", RUN.run_id)
    assert ours is not None
    api.objects[JOB] = {**FOREIGN, "metadata": {**FOREIGN["metadata"], "uid": "theirs"}}
    await apply.end(api, ours, "RUN_STOPPED", "the run was stopped")
    assert "annotations" not in api.objects[JOB]["metadata"]
