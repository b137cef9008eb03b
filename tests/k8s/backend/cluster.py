"""What tests of the backend do to a cluster, as its administrator: namespaces, quotas, rights, and looking at what is there."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lorafleet.spec import ClusterSpec
from service.backends.base import RunRef, RunRequest
from service.backends.kuberay.access import RULES, PolicyRule
from service.backends.kuberay.api import Api, ApiRefusal
from service.backends.kuberay.apply import ray_job_path
from service.backends.kuberay.backend import KubeRay
from service.backends.kuberay.config import KuberayConfig, parse

Object = dict[str, Any]
T = TypeVar("T")

ACCOUNT = "control-plane"
NO_IMAGE = "no-registry.invalid/trainer:none"  # most tests need no container to begin
DEADLINE_S = 180.0


class Cluster:
    """One namespace of the cluster that KUBECONFIG names."""

    def __init__(self, admin: Api, namespace: str, folder: Path) -> None:
        self.admin = admin
        self.namespace = namespace
        self._folder = folder

    async def create(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        await self.admin.create("/api/v1/namespaces", {"metadata": {"name": self.namespace, "labels": labels}})
        await self.admin.create(self._core("serviceaccounts"), {"metadata": {"name": ACCOUNT}})
        await self.grant(RULES)

    async def remove(self) -> None:
        await self.admin.delete(f"/api/v1/namespaces/{self.namespace}", propagation="Background")

    async def grant(self, rules: Sequence[PolicyRule]) -> None:
        """The backend may do exactly this from now on."""
        written = [
            {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)}
            | ({"resourceNames": [rule.name]} if rule.name else {})
            for rule in rules
        ]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": ACCOUNT}, "rules": written}
        await self.admin.apply(self._rbac("roles", ACCOUNT), role, "tests")
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}],
        }
        await self.admin.apply(self._rbac("rolebindings", ACCOUNT), binding, "tests")

    async def kubeconfig(self, server: str | None = None) -> str:
        """Of the backend's account; with `server`, by way of that address."""
        answer = await self.admin.create(self._core("serviceaccounts", ACCOUNT, "token"), {"spec": {}})
        config = _admins_kubeconfig()
        [current] = [each["context"] for each in config["contexts"] if each["name"] == config["current-context"]]
        [found] = [each for each in config["clusters"] if each["name"] == current["cluster"]]
        if server is not None:
            found["cluster"] |= {"server": server, "tls-server-name": "kubernetes.default.svc"}
        context = {"name": "c", "context": {"cluster": found["name"], "user": "u"}}
        user = {"name": "u", "user": {"token": answer["status"]["token"]}}
        path = self._folder / f"kubeconfig-{len(list(self._folder.iterdir()))}"
        path.write_text(yaml.safe_dump({"clusters": [found], "contexts": [context], "users": [user], "current-context": "c"}))
        return str(path)

    @asynccontextmanager
    async def backend(self, *, server: str | None = None, **config: Any) -> AsyncIterator[KubeRay]:
        """As one process of the control plane has it."""
        backend = KubeRay(self.config(**config), Api(await self.kubeconfig(server)))
        try:
            yield backend
        finally:
            await backend.close()

    def config(self, **changes: Any) -> KuberayConfig:
        """Pods as small as they can be."""
        head = {"cpu": "10m", "memory": "64Mi", "shmSize": "16Mi"}
        profiles = {"default": {"head": head, "worker": {"cpuRequestFraction": 0.01, "memory": "64Mi", "shmSize": "16Mi"}}}
        return parse({"namespace": self.namespace, "image": NO_IMAGE, "profiles": profiles, "shutdownTtlSeconds": 3600, **changes})

    async def quota(self, name: str, **hard: str) -> None:
        body = {"metadata": {"name": name}, "spec": {"hard": {key.replace("__", "/"): value for key, value in hard.items()}}}
        await self.admin.create(self._core("resourcequotas"), body)
        await eventually(lambda: self.admin.get(self._core("resourcequotas", name)), _is_counted)

    async def ray_job(self, name: str) -> Object | None:
        try:
            return await self.admin.get(ray_job_path(self.namespace, name))
        except ApiRefusal as error:
            if error.status == 404:
                return None
            raise

    async def pods(self) -> list[Object]:
        return (await self.admin.get(self._core("pods")))["items"]

    async def secrets(self) -> list[str]:
        return [found["metadata"]["name"] for found in (await self.admin.get(self._core("secrets")))["items"]]

    async def delete_pod(self, name: str) -> None:
        await self.admin.delete(self._core("pods", name), propagation="Background")

    def _core(self, *parts: str) -> str:
        return "/".join(["/api/v1/namespaces", self.namespace, *parts])

    def _rbac(self, *parts: str) -> str:
        return "/".join(["/apis/rbac.authorization.k8s.io/v1/namespaces", self.namespace, *parts])


def run(run_id: str = "run-0123456789abcdef", *, instance: str = "ours", num_workers: int = 1) -> RunRequest:
    cluster = ClusterSpec(num_workers=num_workers, cpus_per_worker=1)
    return RunRequest(
        run_id=run_id, instance=instance, manifest_uri="s3://b/m.json", token="s3cret-of-the-run", tenant="acme", cluster=cluster
    )


def ref(request: RunRequest, handle: str | None = None) -> RunRef:
    return RunRef(run_id=request.run_id, handle=handle)


def _admins_kubeconfig() -> Any:
    return yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())


async def eventually(look: Callable[[], Awaitable[T]], good: Callable[[T], bool], within_s: float = DEADLINE_S) -> T:
    """The first answer that is good. Says the last one when none was."""
    last: Any = None
    try:
        async with asyncio.timeout(within_s):
            while not good(last := await look()):  # noqa: ASYNC110 (what is waited for is elsewhere)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s; the last answer: {last}") from None
    return last


def _is_counted(quota: Object) -> bool:
    """Whether its controller has taken it up: before that it holds nobody back."""
    return bool(quota.get("status", {}).get("hard"))
