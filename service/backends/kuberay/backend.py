"""Executes runs as RayJobs, behind the seam of service.backends.base. A run's handle is the namespace that it lives in."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lorafleet.errors import LorafleetError, Unavailable
from service.backends.base import Alive, Observation, RunRef, RunRequest
from service.backends.kuberay import apply, checks
from service.backends.kuberay.api import Api, ApiRefusal
from service.backends.kuberay.config import KuberayConfig
from service.backends.kuberay.driver_log import AllMarks, behind, gathered
from service.backends.kuberay.manifest import RUN_ID, log_prefix
from service.backends.kuberay.names import INSTANCE, object_name
from service.backends.kuberay.objects import Pod, RayJob
from service.backends.kuberay.observation import Lost, ended_before, has_ended, observation
from service.backends.kuberay.troubles import is_head
from service.backends.kuberay.watch import Namespace, Sight
from service.control.capacity import Hardware

FORGOTTEN_S = 300.0  # beyond its time to live: what ended before and is still there was forgotten by whoever was to remove it

log = logging.getLogger(__name__)


class KubeRay:
    """The backend."""

    def __init__(self, config: KuberayConfig, api: Api, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._config = config
        self._api = api
        self._now = now
        self._namespaces: dict[str, Namespace] = {}
        self._marks = AllMarks()
        self._in_order = False
        self._granted: set[str] = set()  # rules that were found granted
        self._told = ""  # what is wrong, as it was logged last

    async def launch(self, run: RunRequest) -> str:
        await apply.launch(self._api, run, self._config)
        for head in await self._standing_heads():
            await apply.bring(self._api, head)
        return self._config.namespace_of(run.tenant)

    async def observe(self, run: RunRef) -> Observation:
        namespace, sight = await self._sight(run)
        if sight.ray_job is None and not sight.pods and sight.departed_ray_job is None and await self._is_there(namespace.name, run):
            return Alive()  # the watch has not heard of it yet
        seen = observation(sight, self._now())
        if isinstance(seen, Lost):
            log.warning("%s cannot go on: %s", run.run_id, seen.message)
            await apply.end(self._api, seen.ray_job, seen.reason, seen.message)
            return Alive(waiting="ENDING", message=seen.message)
        return seen

    async def stop(self, run: RunRef) -> None:
        for namespace in self._namespaces_of(run):
            if (job := await apply.find(self._api, namespace, run.run_id)) is not None:
                await apply.end(self._api, job, "RUN_STOPPED", "the run was stopped")

    async def runs(self, instance: str) -> Sequence[RunRef]:
        """Those that have ended long ago and are still there are among them: nobody else would remove them. Those that are
        being deleted are not: more cannot be done about them, and the pods of a dead node hold them for as long as it likes.
        """
        found: list[RunRef] = []
        long_ago = self._now() - timedelta(seconds=self._config.shutdown_ttl_seconds + FORGOTTEN_S)
        for namespace in [await self._watched(name) for name in self._config.namespaces]:
            for job in namespace.ray_jobs():
                if job["metadata"].get("deletionTimestamp"):
                    continue
                if (job["metadata"].get("labels") or {}).get(INSTANCE) == instance and (not has_ended(job) or ended_before(job, long_ago)):
                    found.append(RunRef(run_id=_run_id(job), handle=namespace.name))
        return found

    async def logs(self, run: RunRef, start: int = 0) -> AsyncGenerator[bytes, None]:
        namespace, sight = await self._sight(run)
        heads = sorted((pod for pod in sight.hosts or sight.pods if is_head(pod)), key=lambda pod: pod["metadata"]["creationTimestamp"])
        if not heads:
            return
        pod = heads[0]
        path = f"/api/v1/namespaces/{namespace.name}/pods/{pod['metadata']['name']}/log"
        marks = self._marks.of(run.run_id, pod["metadata"]["uid"])
        mark = marks.before(start)
        query = {"container": pod["spec"]["containers"][0]["name"], "timestamps": "true", **mark.query}
        try:
            async with aclosing(self._api.lines(path, query)) as lines:
                own = gathered(lines, log_prefix(run.run_id).encode(), mark, marks)
                async for piece in behind(start - mark.end_bytes, own):
                    yield piece
        except ApiRefusal as error:
            if error.status not in {400, 404}:  # its container has not begun, or is gone
                raise

    async def forget(self, run: RunRef) -> None:
        for namespace in self._namespaces_of(run):
            job = await apply.find(self._api, namespace, run.run_id)
            if job is not None and has_ended(job):
                await apply.end(self._api, job)
            if (standing := self._config.standing_cluster) is not None and standing.namespace == namespace:
                await apply.take_back(self._api, run.run_id, namespace, standing.token_secret)

    def hardware(self) -> Hardware | None:
        """It may grow."""
        return None

    async def ping(self) -> None:
        """Looks at everything once, and later only whether the API server is heard of."""
        if not self._in_order:
            await self._check()
            self._in_order = True
        for name in self._config.namespaces:
            await self._watched(name)

    async def close(self) -> None:
        """Runs go on; only what this process had open ends."""
        await asyncio.gather(*(namespace.stop() for namespace in self._namespaces.values()))
        await self._api.close()

    async def _check(self) -> None:
        try:
            await checks.check(self._api, self._config, self._granted)
        except Unavailable:
            raise
        except LorafleetError as error:
            if error.message != self._told:
                log.error("%s", error.message)  # also to who reads logs and asks nobody whether we are ready
                self._told = error.message
            raise Unavailable(error.message, reason=error.reason) from None

    def _namespaces_of(self, run: RunRef) -> Sequence[str]:
        """Where it may be. A run whose handle was lost may be anywhere."""
        return self._config.namespaces if run.handle is None else (run.handle,)

    async def _sight(self, run: RunRef) -> tuple[Namespace, Sight]:
        names = self._namespaces_of(run)
        for name in names:
            namespace = await self._watched(name)
            sight = namespace.of_run(object_name(run.run_id))
            if self._config.standing_cluster is not None:
                sight = replace(sight, hosts=namespace.of_cluster(self._config.standing_cluster.name))
            if sight.ray_job is not None or sight.pods or name == names[-1]:
                return namespace, sight
        raise LookupError("there is always a namespace")

    async def _watched(self, name: str) -> Namespace:
        """Raises Unavailable while it cannot be told what is there."""
        namespace = self._namespaces.get(name)
        if namespace is None:
            namespace = self._namespaces[name] = Namespace(self._api, name)
        try:
            await namespace.ready()
        except ApiRefusal as error:  # forbidden, or no such API: nothing is concluded from that
            raise Unavailable(error.message, reason=error.reason) from None
        return namespace

    async def _standing_heads(self) -> list[Pod]:
        """None also while they cannot be seen."""
        if (standing := self._config.standing_cluster) is None:
            return []
        with suppress(Unavailable):
            pods = (await self._watched(standing.namespace)).of_cluster(standing.name)
            return [pod for pod in pods if is_head(pod) and not pod["metadata"].get("deletionTimestamp")]
        return []

    async def _is_there(self, namespace: str, run: RunRef) -> bool:
        return await apply.find(self._api, namespace, run.run_id) is not None


def _run_id(job: RayJob) -> str:
    return (job["metadata"].get("annotations") or {}).get(RUN_ID) or job["metadata"]["name"]
