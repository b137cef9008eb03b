"""The backend's contract and its faults, on a real API server with a real KubeRay."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from lorafleet.errors import LorafleetError, Unavailable
from service.backends.base import Alive, Observation
from service.backends.kuberay.access import RULES
from service.backends.kuberay.api import ApiRefusal
from service.backends.kuberay.apply import ray_job_path
from service.backends.kuberay.backend import KubeRay
from service.backends.kuberay.names import MANAGER
from service.control.attempts import Gone
from tests.k8s.backend.cluster import Cluster, eventually, ref, run


async def waits_for(backend: KubeRay, request: Any, reason: str) -> Alive:
    def good(seen: Observation) -> bool:
        return isinstance(seen, Alive) and seen.waiting == reason

    found = await eventually(lambda: backend.observe(ref(request)), good)
    assert isinstance(found, Alive)
    return found


async def gone(backend: KubeRay, request: Any) -> Gone:
    found = await eventually(lambda: backend.observe(ref(request)), lambda seen: isinstance(seen, Gone))
    assert isinstance(found, Gone)
    return found


async def test_the_chart_of_rights_is_all_that_is_needed(cluster: Cluster):
    """Everything that the backend does, as an account that may do what RULES say and nothing else."""
    async with cluster.backend() as backend:
        await backend.ping()
        handle = await backend.launch(run())
        assert handle == cluster.namespace
        assert isinstance(await backend.observe(ref(run(), handle)), Alive)
        assert [piece async for piece in backend.logs(ref(run(), handle))] == []
        assert [found.run_id for found in await backend.runs("ours")] == [run().run_id]
        await backend.forget(ref(run(), handle))  # it is alive: nothing happens
        assert await cluster.ray_job(run().run_id) is not None
        await backend.stop(ref(run(), handle))
        await backend.stop(ref(run(), handle))
        assert await gone(backend, run()) == Gone(reason="RUN_STOPPED", message="the run was stopped")


async def test_a_repeated_launch_finds_the_first_and_gives_it_its_token_again(cluster: Cluster):
    async with cluster.backend() as backend, cluster.backend() as another:
        await asyncio.gather(backend.launch(run()), another.launch(run()))
        first = await cluster.ray_job(run().run_id)
        await backend.launch(run())
        again = await cluster.ray_job(run().run_id)
        assert first is not None
        assert again is not None
        assert first["metadata"]["uid"] == again["metadata"]["uid"]
        assert _written_by_us(first) == _written_by_us(again), "KubeRay may have written into it meanwhile; we have not"
        assert run().run_id in await cluster.secrets()


async def test_a_run_is_adopted_by_its_label_after_a_restart(cluster: Cluster):
    async with cluster.backend() as before:
        await before.launch(run())
    async with cluster.backend() as after:
        assert isinstance(await after.observe(ref(run())), Alive)
        assert [found.run_id for found in await after.runs("ours")] == [run().run_id]
        assert await after.runs("another") == []
        assert isinstance(await after.observe(ref(run("run-0000000000000000"))), Gone)


async def test_the_token_is_in_no_spec_and_goes_with_the_run(cluster: Cluster):
    async with cluster.backend() as backend:
        await backend.launch(run())
        await eventually(cluster.pods, lambda pods: len(pods) == 2)
        assert run().token not in json.dumps([await cluster.ray_job(run().run_id), await cluster.pods()])
        await backend.stop(ref(run()))
        await gone(backend, run())
        await eventually(cluster.secrets, lambda names: run().run_id not in names)


async def test_it_is_gone_only_once_its_last_pod_is(cluster: Cluster):
    """Also when somebody deletes the RayJob so that its pods stay behind for a while."""
    async with cluster.backend() as backend:
        await backend.launch(run())
        await eventually(cluster.pods, lambda pods: len(pods) == 2)
        await cluster.admin.delete(ray_job_path(cluster.namespace, run().run_id), propagation="Background")
        seen = await gone(backend, run())
        assert seen.reason == "RAYJOB_DELETED"
        assert await cluster.pods() == []


async def test_an_object_of_that_name_that_is_not_ours_is_left_alone(cluster: Cluster):
    path = ray_job_path(cluster.namespace, run().run_id)
    theirs = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": run().run_id},
        "spec": {"clusterSelector": {"ray.io/cluster": "x"}},
    }
    await cluster.admin.apply(path, theirs, "somebody")
    async with cluster.backend() as backend:
        with pytest.raises(LorafleetError, match="is not this run's") as caught:
            await backend.launch(run())
        assert (caught.value.reason, caught.value.retryable) == ("NAME_TAKEN", False)
    assert (await cluster.admin.get(path))["spec"].get("rayClusterSpec") is None


async def test_an_image_that_does_not_exist_is_told_until_the_deadline_and_then_the_room_is_free(cluster: Cluster):
    async with cluster.backend(preRunningDeadlineSeconds=20) as backend:
        await backend.launch(run())
        assert "no-registry.invalid/trainer:none" in (await waits_for(backend, run(), "IMAGE_PULL_FAILED")).message
        seen = await gone(backend, run())
        assert seen.reason == "IMAGE_PULL_FAILED"
        assert "not started within 20 s" in seen.message
        await backend.forget(ref(run()))
        await eventually(cluster.pods, lambda pods: pods == [])
        await eventually(lambda: cluster.ray_job(run().run_id), lambda job: job is None)


async def test_pods_that_find_no_node_say_what_they_miss(cluster: Cluster):
    profiles = {"default": {"worker": {"nodeSelector": {"pool": "none-of-that-name"}}}}
    async with cluster.backend(preRunningDeadlineSeconds=15, profiles=profiles) as backend:
        await backend.launch(run())
        seen = await gone(backend, run())
        assert seen.reason == "UNSCHEDULABLE"
        assert "a worker's pod finds no node" in seen.message
        assert "node" in seen.message


async def test_a_quota_without_room_for_pods_is_named(cluster: Cluster):
    await cluster.quota("few", pods="1")
    async with cluster.backend() as backend:
        await backend.launch(run(num_workers=2))
        assert "few" in (await waits_for(backend, run(), "QUOTA_EXCEEDED")).message


async def test_a_quota_without_room_for_runs_may_be_tried_again(cluster: Cluster):
    await cluster.quota("runs", **{"count__rayjobs.ray.io": "1"})
    async with cluster.backend() as backend:
        await backend.launch(run())
        other = run("run-1111111111111111")
        with pytest.raises(ApiRefusal) as caught:
            await backend.launch(other)
        assert (caught.value.reason, caught.value.retryable) == ("QUOTA_EXCEEDED", True)
        await backend.stop(ref(run()))
        await gone(backend, run())

        async def launched() -> bool:
            try:
                await backend.launch(other)
            except ApiRefusal:
                return False
            return True

        await eventually(launched, bool)


async def test_a_policy_that_refuses_is_quoted(cluster: Cluster):
    await _policy(cluster)
    try:

        async def refused() -> LorafleetError | None:
            async with cluster.backend() as backend:
                try:
                    await backend.launch(run())
                except LorafleetError as error:
                    return error
                await backend.stop(ref(run()))  # policies take a moment to be heard of
                await gone(backend, run())
                return None

        error = await eventually(refused, lambda found: found is not None)
        assert error is not None
        assert (error.reason, error.retryable) == ("WEBHOOK_REFUSED", False)
        assert "runs are not taken on Mondays" in error.message
    finally:
        await _policy(cluster, remove=True)


async def test_an_evicted_pod_makes_the_run_leave(cluster: Cluster):
    async with cluster.backend() as backend:
        await backend.launch(run())
        [_, worker] = await eventually(cluster.pods, lambda pods: len(pods) == 2)
        await asyncio.sleep(0)  # the pod has no container yet, so it goes as soon as it is asked to
        seen: list[Observation] = []

        async def look() -> list[Observation]:
            seen.append(await backend.observe(ref(run())))
            return seen

        held = asyncio.create_task(eventually(look, lambda found: any(isinstance(each, Alive) and each.leaving for each in found), 60))
        finalizers = {"metadata": {"finalizers": ["tests.lorafleet.dev/hold"]}}  # as a container that saves its work holds it
        path = f"/api/v1/namespaces/{cluster.namespace}/pods/{worker['metadata']['name']}"
        await cluster.admin.merge(path, finalizers, "tests")
        await cluster.delete_pod(worker["metadata"]["name"])
        await held
        await cluster.admin.merge(path, {"metadata": {"finalizers": None}}, "tests")


async def test_a_missing_right_is_named_and_once_granted_all_is_well(cluster: Cluster):
    await cluster.grant([replace(rule, verbs=tuple(verb for verb in rule.verbs if verb != "watch")) for rule in RULES])
    async with cluster.backend() as backend:
        with pytest.raises(Unavailable) as caught:
            await backend.ping()
        assert caught.value.reason == "KUBERNETES_NOT_READY"
        assert f"verb watch on rayjobs (API group ray.io) in namespace {cluster.namespace}" in caught.value.message
        assert f'verb watch on pods (API group "") in namespace {cluster.namespace}' in caught.value.message
        assert "verb get" not in caught.value.message
        await cluster.grant(RULES)
        await eventually(lambda: _answers(backend), bool)


async def test_an_api_server_that_is_away_for_a_minute_ends_nothing_and_is_found_again(cluster: Cluster):
    async with _line(cluster) as line, cluster.backend(server=line.url) as backend:
        await backend.launch(run())
        assert isinstance(await backend.observe(ref(run())), Alive)
        line.cut()
        for _ in range(60):
            with suppress(Unavailable):
                assert isinstance(await backend.observe(ref(run())), Alive)
            await asyncio.sleep(1)
        with pytest.raises(Unavailable):
            await backend.launch(run("run-1111111111111111"))
        await cluster.admin.delete(ray_job_path(cluster.namespace, run().run_id))
        line.mend()

        async def look() -> Observation | None:
            with suppress(Unavailable):  # until the watches try again
                return await backend.observe(ref(run()))
            return None

        found = await eventually(look, lambda seen: isinstance(seen, Gone))
        assert isinstance(found, Gone)
        assert found.reason == "RAYJOB_DELETED"


def _written_by_us(job: dict[str, Any]) -> list[Any]:
    return [entry for entry in job["metadata"]["managedFields"] if entry["manager"] == MANAGER]


async def _answers(backend: KubeRay) -> bool:
    try:
        await backend.ping()
    except Unavailable:
        return False
    return True


async def _policy(cluster: Cluster, *, remove: bool = False) -> None:
    """An admission policy for the RayJobs of the test's namespace: what a webhook does, without a server of our own."""
    root, name = "/apis/admissionregistration.k8s.io/v1", cluster.namespace
    if remove:
        await cluster.admin.delete(f"{root}/validatingadmissionpolicybindings/{name}")
        await cluster.admin.delete(f"{root}/validatingadmissionpolicies/{name}")
        return
    rules = [{"apiGroups": ["ray.io"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["rayjobs"]}]
    refused = [{"expression": "false", "message": "runs are not taken on Mondays"}]
    policy = {
        "metadata": {"name": name},
        "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules}, "validations": refused},
    }
    await cluster.admin.create(f"{root}/validatingadmissionpolicies", policy)
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": here}}
    await cluster.admin.create(f"{root}/validatingadmissionpolicybindings", binding)


class Line:
    """A way to the API server that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.url = ""

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_cut = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _line(cluster: Cluster) -> AsyncIterator[Line]:
    await cluster.admin.get("/version")
    address = urlsplit(cluster.admin.host)
    line = Line(address.hostname or "", address.port or 443)
    async with await line.serve():
        yield line
