"""What the driver hands to its workers: the prepared pack and where to report. Small, and without torch."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from lorafleet.contract.run_manifest import RunManifest, Standby
from lorafleet.spec import ClusterSpec
from trainer.prepare.style import PreparedStyle
from trainer.report import Address
from trainer.tracing import TraceTo


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One run, ready to train."""

    run: str
    pack: tuple[PreparedStyle, ...]
    cache_uri: str
    batch_invariant: bool
    warm_idle_s: float
    report_to: Address
    store_env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)  # its tenant's own store credentials
    bucket_regions: Mapping[str, str] = field(default_factory=dict[str, str])  # as the manifest says
    trace_to: TraceTo = field(default_factory=TraceTo)
    standby: Standby | None = None  # set: the pack is empty
    planned_at: float = field(default_factory=time.time)  # Unix time: from then on workers were waited for

    @classmethod
    def of(cls, manifest: RunManifest, pack: tuple[PreparedStyle, ...], report_to: Address, store_env: Mapping[str, str]) -> "RunPlan":
        return cls(
            run=manifest.run,
            pack=pack,
            cache_uri=manifest.cache_uri,
            batch_invariant=manifest.in_company,
            warm_idle_s=manifest.warm_idle_s,
            report_to=report_to,
            store_env=store_env,
            bucket_regions=manifest.bucket_regions,
            trace_to=TraceTo.of(manifest),
            standby=manifest.standby,
        )

    @property
    def cluster(self) -> ClusterSpec:
        """The workers to start: all styles of a pack ask for the same."""
        return self.pack[0].spec.cluster if self.standby is None else self.standby.cluster

    @property
    def memory_limit_gib(self) -> float | None:
        """What each worker may hold while it waits for another run; None: whatever it holds."""
        if self.standby is not None:
            return self.standby.memory_gib
        return self.pack[0].spec.cluster.memory_gib_per_worker if self.pack else None
