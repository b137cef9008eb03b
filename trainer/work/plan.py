"""What the driver of a run of tasks hands to its worker. Small, and without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lorafleet import work
from lorafleet.contract.run_manifest import RunManifest, Task
from lorafleet.spec import ClusterSpec
from trainer.report import Address
from trainer.tracing import TraceTo


@dataclass(frozen=True, kw_only=True)
class WorkPlan:
    """One run of tasks, ready to begin."""

    run: str
    kind: str
    tasks: tuple[Task, ...]
    cluster: ClusterSpec  # all tasks of a run ask for the same
    warm_idle_s: float
    report_to: Address
    store_env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)  # its tenant's own store credentials
    bucket_regions: Mapping[str, str] = field(default_factory=dict[str, str])
    trace_to: TraceTo = field(default_factory=TraceTo)

    @classmethod
    def of(cls, manifest: RunManifest, report_to: Address, store_env: Mapping[str, str]) -> "WorkPlan":
        """Raises InvalidInput for a spec that its kind cannot read."""
        return cls(
            run=manifest.run,
            kind=manifest.kind,
            tasks=manifest.tasks,
            cluster=work.of(manifest.kind).parse(manifest.tasks[0].spec).cluster,
            warm_idle_s=manifest.warm_idle_s,
            report_to=report_to,
            store_env=store_env,
            bucket_regions=manifest.bucket_regions,
            trace_to=TraceTo.of(manifest),
        )
