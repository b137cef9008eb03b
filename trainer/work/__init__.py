"""Work that is not training (`lorafleet.work`): each kind is a file here, `NAME.py` with a `Worker`, found by the name in a manifest."""

import importlib
from typing import Protocol

from lorafleet.contract.run_manifest import Task
from lorafleet.spec import ClusterSpec
from lorafleet.v1.training_service_pb2 import Artifact
from trainer.report import Reporter


class Worker(Protocol):
    """One process that does task after task of its kind, and keeps what the next may need: a base, adapters."""

    def do(self, task: Task, cluster: ClusterSpec, reporter: Reporter) -> Artifact | None:
        """Does the task, or what an earlier attempt has left of it, and says how far it is. None: it was asked to stop, and what is done is
        kept. Raises RunFailed."""
        ...


def worker(kind: str) -> Worker:
    """A new worker of that kind. Raises ModuleNotFoundError."""
    made: Worker = importlib.import_module(f"trainer.work.{kind}").Worker()
    return made
