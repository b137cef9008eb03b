"""An HTTP server that speaks the API server's watch protocol, driven by a test: lists, events, cuts, and answers 410."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

Object = dict[str, Any]
PODS = "/api/v1/namespaces/runs/pods"


@dataclass
class ApiServer:
    """Pods of one namespace. `version` is the resource version of the newest change."""

    version: int = 10
    oldest: int = 0  # versions before it are expired
    pods: dict[str, Object] = field(default_factory=dict)
    history: list[tuple[int, Object]] = field(default_factory=list)  # (version, event)
    lists: int = 0
    watches: list[str] = field(default_factory=list)  # resource versions that watches began with
    num_open: int = 0  # watches of all kinds that are held open
    away: bool = False
    refusal: tuple[int, Object] | None = None
    tokens: list[str] = field(default_factory=list)
    url: str = ""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _cut: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self._cut.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, folder: Path, token: str = "first") -> str:
        path = folder / "kubeconfig"
        user = {"name": "u", "user": {"token": token}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        cluster = {"name": "c", "cluster": {"server": self.url}}
        path.write_text(json.dumps({"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "c"}))
        return str(path)

    async def put(self, name: str, kind: str = "ADDED", **status: Any) -> None:
        self.version += 1
        metadata = {"name": name, "uid": name, "resourceVersion": str(self.version), "labels": {"lorafleet.dev/run": "run-1"}}
        pod = {"metadata": metadata, "status": status}
        if kind == "DELETED":
            self.pods.pop(name)
        else:
            self.pods[name] = pod
        await self._tell({"type": kind, "object": pod})

    async def bookmark(self) -> None:
        self.version += 1
        await self._tell({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})

    def cut(self) -> None:
        """Every open watch ends."""
        self._cut.set()
        self._cut = asyncio.Event()

    def forget_history(self) -> None:
        """Compaction: a watch from before now is answered 410."""
        self.oldest = self.version

    async def _tell(self, event: Object) -> None:
        self.history.append((self.version, event))
        async with self._changed:
            self._changed.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.away:
            assert request.transport is not None
            request.transport.close()
            return web.Response(status=500)
        if self.refusal is not None:
            return web.json_response(self.refusal[1], status=self.refusal[0])
        if request.query.get("watch"):
            return await self._watch(request)
        if request.path != PODS:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        return self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        self.lists += 1
        names = sorted(self.pods)
        begin, size = int(request.query.get("continue", "0")), 2  # small pages
        metadata = {"resourceVersion": str(self.version)}
        if begin + size < len(names):
            metadata["continue"] = str(begin + size)
        return web.json_response({"items": [self.pods[name] for name in names[begin : begin + size]], "metadata": metadata})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        begin = int(request.query["resourceVersion"])
        is_of_pods = request.path == PODS  # of other kinds nothing is there, and nothing happens
        if is_of_pods:
            self.watches.append(str(begin))
        if is_of_pods and begin < self.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            return web.json_response({"type": "ERROR", "object": gone})
        response = web.StreamResponse()
        await response.prepare(request)
        self.num_open += 1
        cut = self._cut
        while not cut.is_set():
            for version, event in self.history:
                if is_of_pods and version > begin:
                    await response.write(json.dumps(event).encode() + b"\n")
                    begin = version
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.05)
                except TimeoutError:
                    continue
        self.num_open -= 1
        return response
