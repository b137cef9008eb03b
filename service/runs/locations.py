"""Tells where a run finds and leaves things: its manifest, the cache, Ray Train's bookkeeping, and the server that it reports to. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lorafleet.contract.layout import join, run_manifest, tenant_root
from service.db.models import RunRow


@dataclass(frozen=True, kw_only=True)
class RunLocations:
    """Locations in the store, and where runs report to."""

    artifacts_uri: str
    cache_uri: str
    ray_storage_uri: str  # Ray Train's bookkeeping of all runs: a folder, or an s3:// URI
    report_address: str
    otlp_endpoint: str = ""  # where runs send their spans
    report_tls: bool = False
    report_tls_ca: Callable[[], str | None] = lambda: None  # PEM, as it is now; None: what the runs' machines trust

    def of(self, run: RunRow, tenant: str) -> "RunLocations":
        """The locations for this run. A run with its tenant's own store credentials has everything in the tenant's folder, so
        that the credentials need no access to what others use."""
        if not run.store_credentials:
            return self
        home = tenant_root(self.artifacts_uri, tenant)
        storage = f"{home}/runs" if "://" in self.ray_storage_uri else self.ray_storage_uri
        return replace(self, artifacts_uri=home, cache_uri=f"{home}/cache", ray_storage_uri=storage)

    def manifest(self, run_id: str) -> str:
        return run_manifest(self.artifacts_uri, run_id)

    def ray_storage(self, run_id: str) -> str:
        return join(self.ray_storage_uri, run_id, "ray-train")
