"""Says what jobs must have in common to train together, and to follow one another in one process. Knows nothing of queues."""

from dataclasses import dataclass, replace
from functools import cached_property

from lorafleet.spec import DEFAULT_PROFILE
from lorafleet.work import TRAINING
from service.control.capacity import Resources


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The workers that a run asks for."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    memory_gib_per_worker: float | None
    zero_stage: int
    offload: str
    profile: str = DEFAULT_PROFILE

    @cached_property
    def resources(self) -> Resources:
        """Of all workers: they start together or not at all."""
        return Resources(self.num_workers * self.gpus_per_worker, self.num_workers * self.cpus_per_worker, 1)

    @property
    def shape(self) -> "Cluster":
        """The workers alone, however they share out what they train."""
        return replace(self, zero_stage=0, offload="none")


@dataclass(frozen=True, kw_only=True)
class WarmKey:
    """What a run must have in common with the runs before it on warm workers."""

    base_uri: str
    family: str  # empty while it is not known: neither the spec nor, so far, the base has told it
    precision: str
    cluster: Cluster
    base_parts: tuple[tuple[str, str], ...] = ()  # (part, URI) of those that are not the base's own
    store_credentials: str = ""  # the reference; a process has those of one tenant, or the service's own
    kind: str = TRAINING  # of work

    def serves(self, wanted: "WarmKey") -> bool:
        return self == wanted


@dataclass(frozen=True, kw_only=True)
class StandbyKey:
    """The same of workers that stand by: they have loaded no base, and hold no tenant's credentials."""

    cluster: Cluster

    def serves(self, wanted: WarmKey) -> bool:
        return wanted.kind == TRAINING and not wanted.store_credentials and wanted.cluster.shape == self.cluster.shape


@dataclass(frozen=True, kw_only=True)
class PackKey:
    """What the members of a pack have in common. Nothing of their adapters: those of each method, rank and optimizer are a bank apart."""

    warm: WarmKey
    resolution: int | None
    bucketing: bool
    accumulation_steps: int
    clip_skip: int | None = None
    recomputes: bool = False  # the denoiser's blocks in the backward pass: slower for all
    compiles: str = "none"  # how passes are launched
    smaller_resolutions: tuple[int, ...] = ()  # that each picture is trained at besides
    text_precision: str = ""  # of large text encoders, where it is given

    def __str__(self) -> str:
        warm = self.warm
        pixels = f"{', '.join(map(str, (*self.smaller_resolutions, self.resolution)))} px" if self.resolution else "the base's resolution"
        buckets = "buckets" if self.bucketing else "square"
        others = "".join(f" with {part} of {uri}" for part, uri in warm.base_parts)
        family = warm.family or "its family is not known yet"
        skip = f", clip skip {self.clip_skip}" if self.clip_skip else ""
        again = ", gradient checkpointing" if self.recomputes else ""
        compiled = "" if self.compiles == "none" else f", compiled: {self.compiles}"
        texts = f" with texts in {self.text_precision}" if self.text_precision else ""
        return f"{warm.base_uri}{others} ({family}), {warm.precision}{texts}, {pixels} in {buckets}{skip}{again}{compiled}"
