"""An API server in memory, as far as the backend changes anything: create, apply, merge and delete, each as the real one refuses it."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from service.backends.kuberay.api import Api, ApiRefusal

Object = dict[str, Any]


class MemoryApi(Api):
    """Objects by path. `changes` are the verbs and paths of what was changed, or was to be."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Object] = {}
        self.changes: list[tuple[str, str]] = []
        self._uids = itertools.count(1)

    def listed(self, path: str, *objects: Object) -> None:
        """What is there of one kind, and stays so."""
        self.objects[path] = {"metadata": {"resourceVersion": "1"}, "items": list(objects)}
        for each in objects:
            self.objects[f"{path}/{each['metadata']['name']}"] = copy.deepcopy(each)

    async def watch(self, path: str, query: Mapping[str, str], opened: Callable[[], None]) -> AsyncIterator[Object]:
        opened()
        await asyncio.Event().wait()
        yield {}

    async def get(self, path: str, **query: str) -> Object:
        return copy.deepcopy(self._found(path))

    async def create(self, path: str, body: Object) -> Object:
        return self._put("create", f"{path}/{body['metadata']['name']}", body)

    async def apply(self, path: str, body: Object, manager: str) -> Object:
        if path not in self.objects:
            return self._put("apply", path, body)
        self.changes.append(("apply", path))
        self.objects[path] = {**self.objects[path], **body, "metadata": {**self.objects[path]["metadata"], **body["metadata"]}}
        return copy.deepcopy(self.objects[path])

    async def merge(self, path: str, body: Object, manager: str) -> Object:
        self.changes.append(("merge", path))
        found = self._found(path)
        metadata = body.get("metadata", {})
        self._hold(found, metadata.get("uid"), refused(422, "Invalid"))
        found["metadata"].setdefault("annotations", {}).update(metadata.get("annotations", {}))
        if "data" in body:
            data = {**found.get("data", {}), **body["data"]}
            found["data"] = {name: value for name, value in data.items() if value is not None}
        return copy.deepcopy(found)

    async def delete(self, path: str, *, uid: str = "", propagation: str = "Foreground") -> None:
        self.changes.append(("delete", path))
        self._hold(self._found(path), uid, refused(409, "Conflict"))
        del self.objects[path]

    def _put(self, verb: str, path: str, body: Object) -> Object:
        self.changes.append((verb, path))
        if path in self.objects:
            raise refused(409, "AlreadyExists")
        self.objects[path] = copy.deepcopy(body)
        self.objects[path]["metadata"]["uid"] = f"uid-{next(self._uids)}"
        return copy.deepcopy(self.objects[path])

    def _found(self, path: str) -> Object:
        if path not in self.objects:
            raise refused(404, "NotFound")
        return self.objects[path]

    def _hold(self, found: Object, uid: str | None, refusal: ApiRefusal) -> None:
        if uid and found["metadata"]["uid"] != uid:
            raise refusal


def refused(status: int, cause: str) -> ApiRefusal:
    return ApiRefusal(cause, status=status, cause=cause, reason="KUBERNETES_CONFLICT", retryable=True)
