"""Tenants at work: they submit through the real client, repeat themselves, cancel, move an alias, and watch. All of it goes on record."""

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.chaos import registry
from lorafleet import spec as specs
from lorafleet.client import Client
from lorafleet.errors import FailedPrecondition, LorafleetError
from lorafleet.states import has_ended, label
from lorafleet.transport.retry import Patience
from lorafleet.work import generation

WATCHERS = ("jobs-0", "jobs-1", "generations-0")  # of a tenant
LONG = Patience(total_s=180.0, first_s=0.1, most_s=1.0)
MOST_OPEN = 14  # unfinished jobs of a tenant; it waits before it submits more


@dataclass
class Records:
    """What tenants were told. Each list is appended to under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    accepted: list[str] = field(default_factory=list)  # names of jobs, once for each request
    two_names: list[str] = field(default_factory=list)  # a repeated request that made a second job
    refused: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)  # as watchers saw it
    seen: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)  # by watcher: job, version, state
    moves: dict[str, list[registry.Move]] = field(default_factory=dict)  # of aliases, as they were answered, by adapter
    errors: list[str] = field(default_factory=list)


class Tenant:
    """One tenant: a thread that submits, two that move its adapter's alias, and three that watch: two its jobs, one its generations."""

    def __init__(self, tenant: str, target: str, folder: str, records: Records, seed: int, over: threading.Event) -> None:
        self._tenant = tenant
        self._target = target
        self._folder = folder
        self._records = records
        self._seed = seed
        self._draw = random.Random(f"{seed}/{tenant}")
        self._over = over  # no more submissions
        self._done = threading.Event()
        self._mine: list[str] = []
        self._submitter = threading.Thread(target=self._guarded(self._submit), name=f"{tenant}-submits", daemon=True)
        self._movers = [threading.Thread(target=self._guarded(lambda place=place: self._move(place)), daemon=True) for place in range(2)]
        self._watchers = [
            threading.Thread(target=self._guarded(lambda name=name: self._watch(f"{tenant}/{name}")), daemon=True) for name in WATCHERS
        ]

    def start(self) -> None:
        for thread in (*self._watchers, *self._movers, self._submitter):
            thread.start()

    def join_callers(self, timeout_s: float) -> bool:
        for thread in (self._submitter, *self._movers):
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in (self._submitter, *self._movers))

    def stop_watching(self) -> None:
        self._done.set()

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except Exception as error:  # a thread's death is a finding, not a silence
                if not self._done.is_set():
                    with self._records.lock:
                        self._records.errors.append(f"{self._tenant}: {type(error).__name__}: {error}")

        return run

    def _client(self) -> Client:
        return Client(self._target, tenant=self._tenant, patience=LONG, call_timeout_s=4.0)

    def _submit(self) -> None:
        with self._client() as client:
            self._accept([client.create(specs.parse(self._fields()), request_id=str(uuid.uuid4())).name], 1)
            self._accept([self._draw_one(client, str(uuid.uuid4()))], 1)
            while not all(map(self._is_watched, self._mine[:2])) and not self._over.wait(0.1):
                pass  # what comes after these is watched from its first version on
            while not self._over.wait(self._draw.uniform(0.2, 1.2)):
                with self._records.lock:
                    num_open = len(set(self._mine) - self._records.ended)
                if num_open < MOST_OPEN:
                    self._submit_some(client)
                if self._mine and self._draw.random() < 0.06:
                    self._cancel_one(client)

    def _move(self, place: int) -> None:
        with self._client() as client:
            for move in registry.keep_moving(client, random.Random(f"{self._seed}/{self._tenant}/{place}"), self._over):
                with self._records.lock:
                    self._records.moves.setdefault(client.adapter_name(registry.STYLE), []).append(move)

    def _is_watched(self, name: str) -> bool:
        """By each of those that watch such work."""
        own = [f"{self._tenant}/{each}" for each in WATCHERS if name.startswith(f"tenants/{self._tenant}/{each.rpartition('-')[0]}/")]
        return all(any(job == name for job, _, _ in self._records.seen.get(watcher, [])) for watcher in own)

    def _draw_one(self, client: Client, request_id: str) -> str:
        """A generation."""
        fields = {"base_model": self._fields()["base_model"], "prompts": ["a fox"]}
        return client.create_generation(generation.parse(fields), request_id=request_id).name

    def _submit_some(self, client: Client) -> None:
        if self._draw.random() < 0.25:
            size = self._draw.randint(2, 5)
            request_id = str(uuid.UUID(int=self._draw.getrandbits(128), version=4))
            send = lambda: client.create_batch(self._fields(), [{} for _ in range(size)], request_id=request_id)  # noqa: E731
            batch = send()
            names = [job.name for job in client.list_batch_jobs(batch.name)]
            if self._draw.random() < 0.3 and send().name != batch.name:
                self._records.two_names.append(batch.name)
            self._accept(names, size)
            return
        request_id = str(uuid.UUID(int=self._draw.getrandbits(128), version=4))
        is_drawn = self._draw.random() < 0.25
        ask = self._draw_one if is_drawn else lambda client, id: client.create(specs.parse(self._fields()), request_id=id).name
        made = ask(client, request_id)
        if self._draw.random() < 0.3 and (again := ask(client, request_id)) != made:
            self._records.two_names.append(f"{made} and {again}")
        self._accept([made], 1)

    def _accept(self, names: list[str], size: int) -> None:
        with self._records.lock:
            self._mine += names
            self._records.accepted += names
            if len(names) != size:
                self._records.errors.append(f"a batch of {size} has {len(names)} jobs")

    def _cancel_one(self, client: Client) -> None:
        with self._records.lock:
            candidates = sorted(set(self._mine) - self._records.ended)
        if not candidates:
            return
        try:
            name = self._draw.choice(candidates)
            client.cancel_generation(name) if "/generations/" in name else client.cancel(name)
        except FailedPrecondition:
            pass  # it ended before
        except LorafleetError as error:
            with self._records.lock:
                self._records.refused.append(f"cancel: {error}")

    def _fields(self) -> dict[str, Any]:
        return {
            "base_model": {"uri": f"file://{self._folder}/base"},
            "dataset": {"uri": f"file://{self._folder}/pictures"},
            "training": {"max_steps": 20},
            "output": {"adapter": registry.STYLE},
        }

    def _watch(self, watcher: str) -> None:
        seen: list[tuple[str, int, str]] = []
        with self._records.lock:
            self._records.seen[watcher] = seen
        with self._client() as client:
            for job in client.watch_generations() if "/generations-" in watcher else client.watch():
                seen.append((job.name, version_of(job.etag), label(job)))
                if has_ended(job):
                    with self._records.lock:
                        self._records.ended.add(job.name)
                if self._done.is_set():
                    return


def version_of(etag: str) -> int:
    """The version that an etag ends in."""
    return int(etag.strip('"').rpartition("-")[2])
