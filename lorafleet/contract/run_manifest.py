"""Tells a run what it needs to know: written to the store by the control plane, read by the trainer's driver.

Holds no secret: the run token travels in the run's environment under `RUN_TOKEN_ENV`.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from lorafleet.spec import ClusterSpec, Spec
from lorafleet.work import TRAINING

RUN_TOKEN_ENV = "LORAFLEET_RUN_TOKEN"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Style(_Frozen):
    """One member of the pack."""

    job: str  # tenants/{tenant}/jobs/{job}
    spec: Spec
    output_uri: str  # root of everything that the job writes

    @classmethod
    def of(cls, job: str, spec: Spec, output_uri: str) -> Self:
        """With what its job decides filled in: the name of its files."""
        name = spec.output.name or job.rpartition("/")[2]
        return cls(job=job, spec=spec.model_copy(update={"output": spec.output.model_copy(update={"name": name})}), output_uri=output_uri)


class Task(_Frozen):
    """Work of a run that is not training (`lorafleet.work`)."""

    name: str  # tenants/{tenant}/{collection}/{id}
    spec: dict[str, Any]  # as its kind parses it
    output_uri: str  # root of everything that it writes


class Standby(_Frozen):
    """Workers that come up with nothing to train, and wait for the first run that asks for such."""

    cluster: ClusterSpec
    memory_gib: float  # a worker that holds more ends rather than wait


class RunManifest(_Frozen):
    """One execution of a pack; or of none, on workers that stand by."""

    run: str
    attempt: int
    pack: tuple[Style, ...]
    cache_uri: str  # latents and text embeddings by content digest
    report_address: str  # host:port of the ReportService
    report_tls: bool = False  # without: loopback only
    report_tls_ca: str | None = None  # PEM of who signs the control plane's certificate; unset: whom this machine trusts
    heartbeat_interval_s: float = 2.0
    # Set for work that is not training: the pack is empty then. Left out when unset, as others below: a trainer that does not know a
    # field refuses the manifest.
    kind: str = Field(default=TRAINING, exclude_if=lambda kind: kind == TRAINING)
    tasks: tuple[Task, ...] = Field(default=(), exclude_if=lambda tasks: not tasks)
    # A member trains, or has trained, with others: then passes are padded so that its numbers are the same bit for bit
    # in any pack (trainer/adapters/bank.py).
    in_company: bool = False
    warm_idle_s: float = 0.0  # how long the workers wait for another run on the same base once all styles have ended
    # Where the run sends its spans, and the W3C trace parents of its jobs, in the order of the pack.
    otlp_endpoint: str = Field(default="", exclude_if=lambda endpoint: not endpoint)
    trace_parents: tuple[str, ...] = Field(default=(), exclude_if=lambda parents: not parents)
    # Where buckets are that are not in the usual region: the control plane has found out, and the run's client would not.
    bucket_regions: dict[str, str] = Field(default={}, exclude_if=lambda regions: not regions)
    standby: Standby | None = Field(default=None, exclude_if=lambda standby: standby is None)
    storage_dir: str  # Ray Train's own bookkeeping; a folder that all nodes of the run share or an s3:// URI
