"""The kinds of work that runs do: training, and others that are admitted, run, tried again and cancelled like it. Facts, without torch.

A kind is one file here, `NAME.py` with a `KIND`; what the wire shows of it is `service/jobs/kinds/NAME.py`, and what computes it, unless it
is training, `trainer/work/NAME.py`. They are found by the name, which is in the database and in a run's manifest.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from lorafleet.contract.layout import join
from lorafleet.spec import ClusterSpec, SchedulingSpec
from lorafleet.spec_sections import BaseModelSpec

TRAINING = "training"
JOBS = "jobs"


class WorkSpec(Protocol):
    """What the service asks of the spec of any work but training, which it knows more of."""

    @property
    def base_model(self) -> BaseModelSpec: ...

    @property
    def precision(self) -> str: ...

    @property
    def cluster(self) -> ClusterSpec: ...

    @property
    def scheduling(self) -> SchedulingSpec: ...

    @property
    def size(self) -> int:
        """Of how many like pieces it is made: steps, or pictures."""
        ...

    @property
    def uris(self) -> Sequence[str]:
        """All that it reads."""
        ...


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The facts of a kind."""

    name: str
    collection: str  # of its resources: tenants/{tenant}/{collection}/{id}
    one: str  # what people call one of them
    phase: str  # of progress, in which its pieces are done
    folder: str  # of its artifact, in the folder of the work
    parse: Callable[[Mapping[str, Any]], Any]  # of a stored spec; raises InvalidInput
    makes_adapter: bool = False  # its artifact becomes a version of an adapter


@cache
def of(name: str) -> Kind:
    """The kind of that name. Raises ModuleNotFoundError for one that there is not."""
    found: Kind = importlib.import_module(f"lorafleet.work.{name}").KIND
    return found


def artifact_folder(kind: str, root: str) -> str:
    """Where work of that kind, which writes below `root`, commits its artifact."""
    return join(root, of(kind).folder)


def name_of(tenant: str, work_id: str) -> str:
    """The name of a job by its id, or of other work, whose id begins with its collection."""
    return f"tenants/{tenant}/{work_id}" if "/" in work_id else f"tenants/{tenant}/{JOBS}/{work_id}"


def one_of(work_id: str) -> str:
    """What people call the work of that id."""
    return work_id.partition("/")[0].removesuffix("s") if "/" in work_id else "job"


def id_in(collection: str, own_id: str) -> str:
    """The id within the tenant: two collections may have the same ids."""
    return own_id if collection == JOBS else f"{collection}/{own_id}"
