"""What must be in order before runs can go to a cluster, asked of a server that answers as such clusters do."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lorafleet.errors import Unavailable
from service.backends.kuberay import checks
from service.backends.kuberay.access import RULES, reviews, told
from service.backends.kuberay.api import Api
from service.backends.kuberay.backend import KubeRay
from tests.service.backends.kuberay.api_server import ApiServer
from tests.service.backends.kuberay.objects import config

NEW = ("submissionMode", "backoffLimit", "preRunningDeadlineSeconds", "ttlSecondsAfterFinished", "clusterSelector")


def schemas(*fields: str, cluster: tuple[str, ...] = ("authOptions",)) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {} for name in fields}
    properties["rayClusterSpec"] = {"properties": {name: {} for name in cluster}}
    return {"components": {"schemas": {"io.ray.v1.RayJob": {"properties": {"spec": {"properties": properties}}}}}}


class Discovery(ApiServer):
    """A cluster with, or without, KubeRay; `missing` are verbs that are not granted."""

    def __init__(self) -> None:
        super().__init__()
        self.openapi: dict[str, Any] | None = schemas(*NEW)
        self.missing: set[tuple[str, str]] = set()
        self.num_checks = 0  # questions about the cluster's order, and not about what is in it

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.num_checks += "/namespaces/" not in request.path
        if request.path == "/apis/ray.io/v1" and not self.away:
            if self.openapi is None:
                return web.json_response({"kind": "Status", "code": 404, "message": "the server could not find it"}, status=404)
            return web.json_response({"resources": [{"name": "rayjobs"}]})
        if request.path == "/openapi/v3/apis/ray.io/v1":
            return web.json_response(self.openapi)
        if request.path.endswith("selfsubjectaccessreviews"):
            asked = (await request.json())["spec"]["resourceAttributes"]
            resource = "/".join(part for part in (asked["resource"], asked["subresource"]) if part)
            return web.json_response({"status": {"allowed": (asked["verb"], resource) not in self.missing}})
        return await super()._answer(request)


@pytest.fixture
async def cluster() -> AsyncIterator[Discovery]:
    cluster = Discovery()
    await cluster.start()
    yield cluster
    await cluster.stop()


@pytest.fixture
async def backend(cluster: Discovery, tmp_path: Path) -> AsyncIterator[KubeRay]:
    backend = KubeRay(config(), Api(cluster.kubeconfig(tmp_path)))
    yield backend
    await backend.close()


async def why(backend: KubeRay) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await backend.ping()
    return caught.value


async def test_a_cluster_in_order_is_pinged_and_its_order_asked_for_once(cluster: Discovery, backend: KubeRay):
    await backend.ping()
    num = cluster.num_checks
    assert num > len(RULES)
    await backend.ping()
    assert cluster.num_checks == num


async def test_what_was_found_granted_is_not_asked_again(cluster: Discovery, tmp_path: Path):
    """Readiness cuts a try off after seconds: with many namespaces none would come to its end."""
    tenants = {f"t{number}": {"namespace": f"runs-{number}"} for number in range(20)}
    backend = KubeRay(config(tenants=tenants), Api(cluster.kubeconfig(tmp_path)))
    cluster.missing = {("delete", "rayjobs")}
    await why(backend)
    before = cluster.num_checks
    await why(backend)
    assert cluster.num_checks - before == 21 + 2, "one verb in each namespace, and what KubeRay there is"
    await backend.close()


async def test_a_cluster_without_kuberay_is_told_and_so_is_every_other_fault(
    cluster: Discovery, backend: KubeRay, caplog: pytest.LogCaptureFixture
):
    cluster.openapi = None
    cluster.missing = {("get", "pods/log"), ("delete", "rayjobs")}
    error = await why(backend)
    assert error.reason == "KUBERNETES_NOT_READY"
    assert "the API ray.io/v1 is not there; install KubeRay 1.6 or newer" in error.message
    assert 'verb get on pods/log (API group "") in namespace runs' in error.message
    assert "verb delete on rayjobs (API group ray.io) in namespace runs" in error.message
    await why(backend)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


async def test_an_old_kuberay_is_told_by_the_fields_that_it_lacks(cluster: Discovery, backend: KubeRay):
    cluster.openapi = schemas("submissionMode", "backoffLimit", "ttlSecondsAfterFinished", "clusterSelector", cluster=())
    error = await why(backend)
    assert "it has no spec.preRunningDeadlineSeconds, spec.rayClusterSpec.authOptions; install KubeRay 1.6 or newer" in error.message


async def test_what_was_mended_is_found_in_order(cluster: Discovery, backend: KubeRay):
    cluster.openapi = None
    await why(backend)
    cluster.openapi = schemas(*NEW)
    await backend.ping()


async def test_an_api_server_that_is_away_is_no_missing_kuberay(cluster: Discovery, backend: KubeRay):
    cluster.away = True
    assert (await why(backend)).reason == "KUBERNETES_UNREACHABLE"


@pytest.mark.parametrize("field", checks.FIELDS, ids=".".join)
def test_every_field_that_is_set_is_looked_for(field: tuple[str, ...]):
    openapi = schemas(*NEW)
    spec = openapi["components"]["schemas"]["io.ray.v1.RayJob"]["properties"]["spec"]
    for name in field[:-1]:
        spec = spec["properties"][name]
    del spec["properties"][field[-1]]
    assert checks.lacks(openapi) == [f"spec.{'.'.join(field)}"]


def test_it_makes_secrets_and_reads_none():
    """Whoever may patch a Secret reads it: the answer is the whole of it."""
    assert [rule.verbs for rule in RULES if rule.resource == "secrets"] == [("create",)]


def test_of_a_standing_clusters_tokens_it_asks_for_the_one_secret():
    standing = config(standingCluster={"name": "warm", "namespace": "warmth"})
    [patches] = [each for each in reviews(standing, "warmth") if each["verb"] == "patch" and each["resource"] == "secrets"]
    assert told(patches) == 'verb patch on secrets lorafleet-run-tokens (API group "") in namespace warmth'
    assert not [each for each in reviews(standing, "runs") if each["verb"] == "patch" and each["resource"] == "secrets"]


def test_at_a_standing_cluster_it_changes_pods_and_elsewhere_it_does_not():
    standing = config(standingCluster={"name": "warm", "namespace": "warmth"})
    changed = [[each["resource"] for each in reviews(standing, name) if each["verb"] == "patch"] for name in ("warmth", "runs")]
    assert changed == [["rayjobs", "secrets", "pods"], ["rayjobs"]]
