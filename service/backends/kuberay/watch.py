"""What is there now, kept by watches: list once, then follow; list again when the server says that too much was missed.

Knows nothing of runs but the label that groups their objects.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from lorafleet.backoff import doubled_s, spread_s
from lorafleet.errors import LorafleetError, Unavailable
from service.backends.kuberay.api import UNREACHABLE, Api, Expired
from service.backends.kuberay.names import RUN, SELECTOR
from service.backends.kuberay.objects import AnyObject, Event, Found, ObjectList, Pod, RayJob, WatchEvent

FIRST_LIST_WITHIN_S = 20.0
STALE_S = 30.0  # after which what was seen last is no longer told as what is
WATCH_FOR_S = 120  # the server ends it then, and it goes on; events have no bookmarks, so silence alone says nothing
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 10.0
PAGE = 500
MAX_DEPARTED = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WatchedKind(Generic[Found]):
    """What is watched, in one namespace."""

    path: str  # with {namespace}
    query: dict[str, str]
    keys: Callable[[Found], Sequence[str]]  # under which an object is found


def _run(found: AnyObject) -> Sequence[str]:
    label = (found["metadata"].get("labels") or {}).get(RUN, "")
    return (label,) if label else ()


def _about(event: Event) -> Sequence[str]:
    """KubeRay's names begin with the RayJob's, its cluster's and its pods': every beginning of the name up to a dash."""
    parts = event.get("involvedObject", {}).get("name", "").split("-")
    return ["-".join(parts[:number]) for number in range(1, len(parts) + 1)]


RAY_JOBS = WatchedKind[RayJob](path="/apis/ray.io/v1/namespaces/{namespace}/rayjobs", query={"labelSelector": SELECTOR}, keys=_run)
PODS = WatchedKind[Pod](path="/api/v1/namespaces/{namespace}/pods", query={"labelSelector": SELECTOR}, keys=_run)
EVENTS = WatchedKind[Event](path="/api/v1/namespaces/{namespace}/events", query={"fieldSelector": "type=Warning"}, keys=_about)


class Index(Generic[Found]):
    """Objects by uid, and by the keys of their kind. With `most`, the oldest give way."""

    def __init__(self, keys: Callable[[Found], Sequence[str]], most: int | None = None) -> None:
        self._keys = keys
        self._most = most
        self._objects: OrderedDict[str, Found] = OrderedDict()
        self._by_key: dict[str, dict[str, Found]] = {}

    def put(self, found: Found) -> None:
        self.drop(found["metadata"]["uid"])
        self._objects[found["metadata"]["uid"]] = found
        for key in self._keys(found):
            self._by_key.setdefault(key, {})[found["metadata"]["uid"]] = found
        if self._most is not None and len(self._objects) > self._most:
            self.drop(next(iter(self._objects)))

    def drop(self, uid: str) -> None:
        found = self._objects.pop(uid, None)
        for key in () if found is None else self._keys(found):
            del self._by_key[key][uid]
            if not self._by_key[key]:
                del self._by_key[key]

    def uids(self) -> set[str]:
        return set(self._objects)

    def all(self) -> Iterable[Found]:
        return self._objects.values()

    def get(self, uid: str) -> Found:
        return self._objects[uid]

    def under(self, key: str) -> tuple[Found, ...]:
        return tuple(self._by_key.get(key, {}).values())


class Watched(Generic[Found]):
    """One kind in one namespace, as it is now as far as has been heard."""

    def __init__(self, api: Api, kind: WatchedKind[Found], namespace: str) -> None:
        self._api = api
        self._path = kind.path.format(namespace=namespace)
        self._query = kind.query
        self.there = Index(kind.keys)
        self.departed = Index(kind.keys, MAX_DEPARTED)  # those that are no more, as they were seen last
        self._version: str | None = None  # None: list
        self._synced = asyncio.Event()
        self._heard_at = 0.0
        self._failure: LorafleetError | None = None
        self._task: asyncio.Task[None] | None = None
        self.num_lists = 0

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ready(self) -> None:
        """Waits for the first list. Raises what stands in the way, and Unavailable when nothing has been heard for a while."""
        if not self._synced.is_set():
            try:
                async with asyncio.timeout(FIRST_LIST_WITHIN_S):
                    await self._first()
            except TimeoutError:
                raise Unavailable(f"{self._path} is not listed yet", reason=UNREACHABLE) from None
        if self._failure is not None and asyncio.get_running_loop().time() - self._heard_at > STALE_S:
            raise Unavailable(self._failure.message, reason=self._failure.reason)

    @property
    def is_fresh(self) -> bool:
        """Whether the last word from the server was a good one."""
        return self._synced.is_set() and self._failure is None

    async def _first(self) -> None:
        while not self._synced.is_set():
            if self._failure is not None:
                raise self._failure
            waiting = asyncio.ensure_future(self._synced.wait())
            await asyncio.wait({waiting}, timeout=0.1)
            waiting.cancel()

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
                failures = 0
            except Expired:
                log.info("%s: too much was missed; listing again", self._path)
                self._version = None
            except LorafleetError as error:
                if failures == 0:
                    log.warning("watch of %s: %s", self._path, error)
                self._failure = error
                failures += 1
                await asyncio.sleep(spread_s(doubled_s(FIRST_BACKOFF_S, MAX_BACKOFF_S, failures)))
            except Exception:
                log.exception("watch of %s failed and will be begun again", self._path)
                self._version = None
                await asyncio.sleep(1.0)

    async def _list(self) -> None:
        found: dict[str, Found] = {}
        query = {**self._query, "limit": str(PAGE)}
        while True:
            page: ObjectList[Found] = await self._api.get(self._path, **query)
            found.update({item["metadata"]["uid"]: item for item in page.get("items") or []})
            if not (more := page["metadata"].get("continue")):
                break
            query["continue"] = more
        self.num_lists += 1
        for uid in self.there.uids() - found.keys():
            self._depart(self.there.get(uid))
        for item in found.values():
            self.there.put(item)
        self._version = page["metadata"]["resourceVersion"]
        self._heard()
        self._synced.set()

    async def _watch(self) -> None:
        query = {**self._query, "resourceVersion": self._version or "", "timeoutSeconds": str(WATCH_FOR_S), "allowWatchBookmarks": "true"}
        async for event in self._api.watch(self._path, query, self._heard):
            self._take(event)

    def _take(self, event: WatchEvent) -> None:
        found: Found = event["object"]
        self._version = found["metadata"]["resourceVersion"]
        self._heard()
        match event["type"]:
            case "BOOKMARK":
                return
            case "DELETED":
                self._depart(found)
            case _:
                self.there.put(found)

    def _heard(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._failure = None

    def _depart(self, found: Found) -> None:
        self.there.drop(found["metadata"]["uid"])
        self.departed.put(found)


def _order(pod: Pod) -> tuple[bool, str]:
    """The head first, the others by name: what is told of them does not change with the order of events."""
    return (pod["metadata"].get("labels") or {}).get("ray.io/node-type") != "head", pod["metadata"]["name"]


@dataclass(frozen=True)
class Sight:
    """All that is known of a run in one namespace."""

    ray_job: RayJob | None
    pods: tuple[Pod, ...]
    events: tuple[Event, ...]
    departed_ray_job: RayJob | None = None  # the last one of that name that went
    departed_pods: tuple[Pod, ...] = ()
    hosts: tuple[Pod, ...] = ()  # the pods of the standing cluster that it runs on


class Namespace:
    """The runs of one namespace."""

    def __init__(self, api: Api, name: str) -> None:
        self.name = name
        self._ray_jobs = Watched(api, RAY_JOBS, name)
        self._pods = Watched(api, PODS, name)
        self._events = Watched(api, EVENTS, name)

    @property
    def _all(self) -> tuple[Watched[RayJob], Watched[Pod], Watched[Event]]:
        return self._ray_jobs, self._pods, self._events

    async def ready(self) -> None:
        """Starts watching with the first call. Raises as Watched.ready."""
        for watched in self._all:
            watched.start()
        await asyncio.gather(*(watched.ready() for watched in self._all))

    async def stop(self) -> None:
        await asyncio.gather(*(watched.stop() for watched in self._all))

    def ray_jobs(self) -> list[RayJob]:
        return list(self._ray_jobs.there.all())

    def of_cluster(self, name: str) -> tuple[Pod, ...]:
        """The pods of a standing cluster that are labelled as ours."""
        return tuple(pod for pod in self._pods.there.all() if (pod["metadata"].get("labels") or {}).get("ray.io/cluster") == name)

    def of_run(self, name: str) -> Sight:
        """By the run's object name."""
        there, gone = self._ray_jobs.there.under(name), self._ray_jobs.departed.under(name)
        return Sight(
            ray_job=there[-1] if there else None,
            pods=tuple(sorted(self._pods.there.under(name), key=_order)),
            events=self._events.there.under(name),
            departed_ray_job=gone[-1] if gone else None,
            departed_pods=self._pods.departed.under(name),
        )
