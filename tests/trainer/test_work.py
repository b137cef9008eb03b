"""A worker's loop over tasks: each ends by itself, whatever becomes of the others."""

from typing import Any

import pytest

from lorafleet.contract.run_manifest import RunManifest, Task
from lorafleet.errors import RunFailed
from lorafleet.spec import ClusterSpec
from lorafleet.v1.training_service_pb2 import Artifact
from trainer import eviction
from trainer.report import Address
from trainer.work.loop import do_all
from trainer.work.plan import WorkPlan

TASKS = tuple(Task(name=f"tenants/acme/drawings/{name}", spec={}, output_uri=f"file:///{name}") for name in ("one", "two", "three"))


class Ends:
    """What a reporter is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def succeeded(self, job: str, step: int, artifact: Artifact) -> None:
        self.told.append((job[-3:], artifact.uri))

    def failed(self, job: str, error: RunFailed) -> None:
        self.told.append((job[-3:], error.reason))

    def stopped(self, job: str, step: int) -> None:
        self.told.append((job[-3:], "stopped"))


class Worker:
    """Fails at the second task, by a fault that nobody has foreseen, and is asked to stop at the third."""

    def do(self, task: Task, cluster: ClusterSpec, reporter: Any) -> Artifact | None:
        if task.name.endswith("two"):
            raise ZeroDivisionError("nobody has foreseen this")
        return None if task.name.endswith("three") else Artifact(uri=task.output_uri)


def plan() -> WorkPlan:
    address = Address("run-1", "127.0.0.1:1", "token")
    return WorkPlan(run="run-1", kind="drawing", tasks=TASKS, cluster=ClusterSpec(), warm_idle_s=0, report_to=address)


def test_a_task_that_fails_ends_alone():
    ends: Any = Ends()
    do_all(Worker(), plan(), ends)
    assert ends.told == [("one", "file:///one"), ("two", "INTERNAL"), ("ree", "stopped")]


def test_a_pod_that_must_go_begins_no_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(eviction, "is_told", lambda: True)
    ends: Any = Ends()
    do_all(Worker(), plan(), ends)
    assert {what for _, what in ends.told} == {"stopped"}


def test_a_manifest_of_training_says_nothing_of_tasks():
    """An older trainer refuses fields that it does not know."""
    manifest = RunManifest(run="run-1", attempt=1, pack=(), cache_uri="file:///c", report_address="127.0.0.1:1", storage_dir="/tmp")
    assert not {"kind", "tasks"} & set(manifest.model_dump(mode="json"))
    assert RunManifest.model_validate_json(manifest.model_copy(update={"tasks": TASKS, "kind": "drawing"}).model_dump_json()).tasks == TASKS
