"""Runs on a RayCluster that is there already: no pods of their own, their token by its Secret, their logs apart."""

import asyncio
import os
from dataclasses import replace
from typing import Any

from service.backends.base import Alive
from service.backends.kuberay.access import rules
from service.backends.kuberay.config import KuberayConfig
from service.backends.kuberay.manifest import ray_cluster
from service.backends.kuberay.names import MANAGER
from service.control.attempts import Gone
from tests.k8s.backend.cluster import Cluster, eventually, ref, run

WARM = "warm"
TOKENS = "lorafleet-run-tokens"
NO_MANIFEST = "file:///none/{}.json"  # the driver says so, and ends


async def test_runs_on_a_standing_cluster_get_their_tokens_and_keep_their_logs_apart(cluster: Cluster):
    await _stand_up(cluster)
    standing = {"name": WARM, "namespace": cluster.namespace}
    async with cluster.backend(image=os.environ["FAST_TRAINER_IMAGE"], standingCluster=standing) as backend:
        pods = {pod["metadata"]["name"] for pod in await cluster.pods()}
        runs = [_run("run-000000000000000a"), _run("run-000000000000000b")]
        await asyncio.gather(*(backend.launch(each) for each in runs))
        assert set((await _tokens(cluster))["data"]) == {each.run_id for each in runs}
        for each in runs:
            found = await eventually(
                lambda each=each: backend.observe(ref(each)), lambda seen: isinstance(seen, Gone), 170
            )  # or its token has not come
            assert isinstance(found, Gone)
            assert found.reason == "DRIVER_EXITED"
            log = b"".join([piece async for piece in backend.logs(ref(each))]).decode()
            assert f"/none/{each.run_id}.json" in log
            assert all(other.run_id not in log for other in runs if other is not each)
        assert {pod["metadata"]["name"] for pod in await cluster.pods()} == pods
        for each in runs:
            await backend.forget(ref(each))
            await eventually(lambda each=each: cluster.ray_job(each.run_id), lambda job: job is None)
        tokens = await _tokens(cluster)
        assert not tokens.get("data")
        assert [entry["manager"] for entry in tokens["metadata"]["managedFields"]].count(MANAGER) <= 1
        assert not any(each.run_id in str(tokens) for each in runs), "nothing of them is left, or it would grow with each run"


async def test_a_run_ends_with_the_head_that_it_began_on(cluster: Cluster):
    """KubeRay would give the job to the head's successor: a second attempt of which nobody knows."""
    await _stand_up(cluster)
    standing = {"name": WARM, "namespace": cluster.namespace}
    async with cluster.backend(image=os.environ["FAST_TRAINER_IMAGE"], standingCluster=standing) as backend:
        [head] = await cluster.pods()
        hangs = replace(_run("run-000000000000000c"), manifest_uri="s3://nobody-answers/run.json")
        await backend.launch(hangs)
        await eventually(lambda: backend.observe(ref(hangs)), lambda seen: seen == Alive(), 120)
        await cluster.delete_pod(head["metadata"]["name"])
        found = await eventually(lambda: backend.observe(ref(hangs)), lambda seen: isinstance(seen, Gone), 120)
        assert isinstance(found, Gone)
        assert found.reason in {"RAY_HEAD_GONE", "POD_DELETED"}
        assert await cluster.ray_job(hangs.run_id) is None


def _run(run_id: str) -> Any:
    return replace(run(run_id), manifest_uri=NO_MANIFEST.format(run_id))


async def _tokens(cluster: Cluster) -> dict[str, Any]:
    return await cluster.admin.get(f"/api/v1/namespaces/{cluster.namespace}/secrets/{TOKENS}")


async def _stand_up(cluster: Cluster) -> None:
    """As an operator would: a RayCluster whose head mounts the Secret of tokens, and whose pods are labelled for us to see."""
    await cluster.admin.create(f"/api/v1/namespaces/{cluster.namespace}/secrets", {"metadata": {"name": TOKENS}})
    await cluster.grant(rules(cluster.config(standingCluster={"name": WARM, "namespace": cluster.namespace}), cluster.namespace))
    config = cluster.config(image=os.environ["FAST_TRAINER_IMAGE"])
    body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": WARM}, "spec": _spec(config)}
    await cluster.admin.create(f"/apis/ray.io/v1/namespaces/{cluster.namespace}/rayclusters", body)
    path = f"/apis/ray.io/v1/namespaces/{cluster.namespace}/rayclusters/{WARM}"
    await eventually(lambda: cluster.admin.get(path), lambda found: found.get("status", {}).get("state") == "ready")


def _spec(config: KuberayConfig) -> dict[str, Any]:
    spec = ray_cluster(run(), config, config.profiles["default"])
    head = spec["headGroupSpec"]["template"]
    head["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "lorafleet"}
    [tokens] = [volume for volume in head["spec"]["volumes"] if "secret" in volume]
    tokens["secret"]["secretName"] = TOKENS
    head["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    head["spec"]["terminationGracePeriodSeconds"] = 5
    return {**spec, "workerGroupSpecs": []}
