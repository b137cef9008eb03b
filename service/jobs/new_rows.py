"""Turns new jobs, and other work, into rows: one place fills in what the spec says of the queue, for those of batches too."""

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import uuid4

from lorafleet import work
from lorafleet.spec import ClusterSpec, SchedulingSpec
from lorafleet.work import TRAINING
from service.control.lifecycle import JobState
from service.core import telemetry
from service.db.models import JobRow


class QueuedSpec(Protocol):
    """What the queue asks of the spec of any work."""

    @property
    def cluster(self) -> ClusterSpec: ...

    @property
    def scheduling(self) -> SchedulingSpec: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


def new_row(
    tenant: str, job_id: str, spec: QueuedSpec, stored: dict[str, Any], output_uri: str, created_by: str, *, kind: str = TRAINING
) -> JobRow:
    """A job, or other work, that is queued. `stored` is the spec as plain values."""
    cluster, scheduling = spec.cluster, spec.scheduling
    return JobRow(
        uid=uuid4().hex,
        tenant=tenant,
        job_id=job_id,
        kind=kind,
        adapter_version=None if work.of(kind).makes_adapter else 0,
        spec=stored,
        labels=dict(spec.labels),
        output_uri=output_uri,
        state=JobState.QUEUED.value,
        reason="",
        message="",
        attempt=0,
        failures=0,
        cancel_requested=False,
        created_by=created_by,
        priority=scheduling.priority,
        gpus=cluster.num_workers * cluster.gpus_per_worker,
        cpus=cluster.num_workers * cluster.cpus_per_worker,
        preempt_requested=False,
        max_run_time_s=scheduling.max_run_time_s,
        run_time_s=0.0,
        version=0,
        trace_parent=telemetry.calls_trace_parent.get(),
    )
