"""What operators say about runs on Kubernetes: the file of `lorafleet serve --kuberay-config`, and `runs:` in the chart's values.

Keys are camelCase, as Kubernetes has them. Users choose a profile by name in their spec and can set no part of a pod.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeGuard

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from lorafleet.errors import InvalidInput, Violation
from lorafleet.field_paths import field_path
from lorafleet.spec import DEFAULT_PROFILE

RAY_VERSION = "2.60.0"  # of the trainer image; KubeRay chooses probes by it

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
Seconds = Annotated[int, Field(ge=0, le=7 * 24 * 3600)]
Labels = dict[str, str]
Items = tuple[dict[str, Any], ...]  # as Kubernetes defines them; the API server checks them


class _ConfigPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Placing(_ConfigPart):
    """Where pods go, and what else they are given."""

    node_selector: Labels = {}
    tolerations: Items = ()
    affinity: dict[str, Any] = {}
    topology_spread_constraints: Items = ()
    priority_class_name: str = ""
    runtime_class_name: str = ""
    labels: Labels = {}
    annotations: Labels = {}
    volumes: Items = ()
    volume_mounts: Items = ()
    shm_size: Quantity = "2Gi"  # /dev/shm: Ray's object store, NCCL, data loaders; counts as memory
    ephemeral_storage: Quantity | None = None  # of the node's disk: /tmp, home, output; unset: no request and no limit


class Head(Placing):
    """The pod of the Ray head and the driver. No worker trains there."""

    cpu: Quantity = "1"
    memory: Quantity = "4Gi"
    shm_size: Quantity = "512Mi"


class Worker(Placing):
    """A worker's pod. CPU, GPUs and memory are the spec's own."""

    memory: Quantity | None = None  # for specs that say none; unset: no request and no limit
    cpu_request_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the spec's CPUs: below 1 nodes are shared by more than fit


class PodProfile(_ConfigPart):
    """How the pods of a run look. The name is what `cluster.profile` of a spec says."""

    image: str = ""  # unset: the one of all runs
    head: Head = Head()
    worker: Worker = Worker()


class Tenant(_ConfigPart):
    """A tenant whose runs live apart from the others'."""

    namespace: DnsLabel
    service_account: ObjectName | None = None  # unset: as for everybody
    store_secret: ObjectName | None = None  # unset: as for everybody


class Kueue(_ConfigPart):
    """Kueue admits the RayJobs: its queue in the run's namespace, and its priority classes by our names (low, normal, high)."""

    queue: ObjectName
    priority_classes: dict[Annotated[str, Field(pattern="^(low|normal|high)$")], ObjectName] = {}


class StandingCluster(_ConfigPart):
    """A RayCluster that is there already: runs go onto it, one after another, and start no pods."""

    name: DnsLabel
    namespace: DnsLabel
    token_secret: ObjectName = "lorafleet-run-tokens"  # mounted by its head; holds the tokens of runs, each under its run's id
    token_path: str = "/var/run/lorafleet"  # where the head mounts it


class KuberayConfig(_ConfigPart):
    """Everything about runs on Kubernetes."""

    namespace: DnsLabel
    image: Annotated[str, Field(min_length=1)]
    image_pull_policy: Annotated[str, Field(pattern="^(Always|IfNotPresent|Never)$")] = "IfNotPresent"
    image_pull_secrets: tuple[ObjectName, ...] = ()
    service_account: ObjectName = "default"
    store_secret: ObjectName | None = None  # unset: web identity of the service account
    store_ca_secret: ObjectName | None = None  # with ca.crt, in each namespace of runs; unset: the store's authority is a public one
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    ray_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = RAY_VERSION
    gpu_resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    shutdown_ttl_seconds: Seconds = 60  # pods of a run that has ended stay so long at most; they go once its log is copied
    pre_running_deadline_seconds: Annotated[int, Field(ge=1)] = 900  # until all pods of a run are there
    termination_grace_period_seconds: Seconds = 120  # for a checkpoint, when a pod is evicted, drained or preempted
    run_as_user: Annotated[int, Field(ge=1)] = 10001
    kueue: Kueue | None = None
    tenants: dict[str, Tenant] = {}
    profiles: dict[DnsLabel, PodProfile] = {DEFAULT_PROFILE: PodProfile()}
    standing_cluster: StandingCluster | None = None

    @model_validator(mode="after")
    def _has_a_default_profile(self) -> Self:
        if DEFAULT_PROFILE not in self.profiles:
            raise ValueError(f'profiles: "{DEFAULT_PROFILE}" is required: it is what a spec gets that names none')
        return self

    @model_validator(mode="after")
    def _fits_a_standing_cluster(self) -> Self:
        if self.standing_cluster is not None and self.tenants:
            raise ValueError("standingCluster: it is one place for all tenants; take tenants out, or give it up")
        if self.standing_cluster is not None and self.kueue is not None:
            raise ValueError(
                "standingCluster: Kueue cannot hold back what starts no pods (KubeRay refuses it); take kueue out, or give it up"
            )
        return self

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every namespace that runs may live in."""
        standing = () if self.standing_cluster is None else (self.standing_cluster.namespace,)
        return tuple(sorted({self.namespace, *standing, *(tenant.namespace for tenant in self.tenants.values())}))

    def namespace_of(self, tenant: str) -> str:
        """Where that tenant's runs live; those of several tenants live where nobody's own do."""
        if self.standing_cluster is not None:
            return self.standing_cluster.namespace
        own = self.tenants.get(tenant)
        return self.namespace if own is None else own.namespace

    def service_account_of(self, tenant: str) -> str:
        own = self.tenants.get(tenant)
        return (own and own.service_account) or self.service_account

    def store_secret_of(self, tenant: str) -> str | None:
        own = self.tenants.get(tenant)
        return (own and own.store_secret) or self.store_secret


def load(path: Path) -> KuberayConfig:
    """The file. Raises InvalidInput with every violation, each by its path in the file."""
    try:
        fields = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidInput(f"--kuberay-config: {path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"--kuberay-config: {path} is no YAML: {error}") from None
    if not _is_mapping(fields):
        raise InvalidInput(f"--kuberay-config: {path} holds no mapping; it begins with `namespace: ...`")
    return parse(fields, str(path))


def parse(fields: Mapping[str, Any], origin: str = "--kuberay-config") -> KuberayConfig:
    """The configuration from plain values. Raises InvalidInput with every violation."""
    try:
        return KuberayConfig.model_validate(fields, by_name=False, by_alias=True)
    except ValidationError as error:
        found = [_of(each) for each in error.errors()]
    lines = [f"{origin}: {len(found)} problem{'s' if len(found) != 1 else ''}", *(f"  {violation}" for violation in found)]
    raise InvalidInput("\n".join(lines), violations=found, reason="INVALID_KUBERAY_CONFIG")


def _is_mapping(fields: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(fields, Mapping)


def _of(error: Mapping[str, Any]) -> Violation:
    """What a rule over several fields says begins with the field that it is about."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        field, _, message = message.partition(": ")
        return Violation(field=field, message=message)
    return Violation(field=field_path(error["loc"]), message=message)
