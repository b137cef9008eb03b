"""Kubernetes' objects, as far as they are read here: types alone. The API server answers more fields than these.

Fields of a `total=False` type, and those that are NotRequired, may be missing; of what the API server leaves empty some are null.
"""

from collections.abc import Mapping
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

Object = dict[str, Any]  # one that we make: the API server checks it, by schemas that depend on its version


class Metadata(TypedDict):
    """Of every object."""

    name: str
    namespace: str
    uid: str
    resourceVersion: str
    creationTimestamp: str
    deletionTimestamp: NotRequired[str]  # it is being deleted
    labels: NotRequired[Mapping[str, str]]
    annotations: NotRequired[Mapping[str, str]]


class AnyObject(TypedDict):
    """An object of whatever kind."""

    metadata: Metadata


class WorkerGroup(TypedDict, total=False):
    """Workers of a RayCluster that are alike."""

    replicas: int


class RayClusterSpec(TypedDict, total=False):
    """What a RayCluster is to be."""

    workerGroupSpecs: list[WorkerGroup]


class RayJobSpec(TypedDict, total=False):
    """What a RayJob is to be."""

    suspend: bool
    preRunningDeadlineSeconds: int
    clusterSelector: Mapping[str, str]
    rayClusterSpec: RayClusterSpec


class RayJobStatus(TypedDict, total=False):
    """What KubeRay says of a RayJob."""

    jobDeploymentStatus: str
    jobStatus: str
    reason: str
    message: str
    endTime: str


class RayJob(AnyObject):
    """A run."""

    spec: RayJobSpec
    status: NotRequired[RayJobStatus]


class Waiting(TypedDict, total=False):
    """Of a container that does not run yet."""

    reason: str
    message: str


class Running(TypedDict):
    """Of a container that runs."""

    startedAt: str


class Terminated(TypedDict, total=False):
    """Of a container that runs no more."""

    reason: str
    exitCode: int


class ContainerState(TypedDict, total=False):
    """One of them is there."""

    waiting: Waiting
    running: Running
    terminated: Terminated


class ContainerStatus(TypedDict):
    """What a kubelet says of a container."""

    name: str
    image: NotRequired[str]
    restartCount: NotRequired[int]
    state: NotRequired[ContainerState]
    lastState: NotRequired[ContainerState]


class Condition(TypedDict, total=False):
    """One of the questions that a pod's status answers: `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str


class PodStatus(TypedDict, total=False):
    """What a kubelet and the scheduler say of a pod."""

    phase: str
    reason: str
    message: str
    conditions: list[Condition]
    initContainerStatuses: list[ContainerStatus]
    containerStatuses: list[ContainerStatus]


class Resources(TypedDict, total=False):
    """Of a container: by name a quantity."""

    limits: Mapping[str, str]


class Container(TypedDict):
    """A container of a pod."""

    name: str
    resources: NotRequired[Resources]


class PodSpec(TypedDict):
    """What a pod is to be."""

    containers: list[Container]
    initContainers: NotRequired[list[Container]]
    nodeName: NotRequired[str]  # once it has a node


class Pod(AnyObject):
    """A pod of a run, or of a standing cluster."""

    spec: PodSpec
    status: NotRequired[PodStatus]


class ObjectReference(TypedDict, total=False):
    """What an event is about."""

    name: str


class Event(AnyObject):
    """Something that happened to an object."""

    involvedObject: ObjectReference
    reason: NotRequired[str]
    message: NotRequired[str]
    lastTimestamp: NotRequired[str]
    eventTime: NotRequired[str]


Found = TypeVar("Found", bound=AnyObject)
ListMetadata = TypedDict("ListMetadata", {"resourceVersion": str, "continue": NotRequired[str]})


class ObjectList(TypedDict, Generic[Found]):
    """A page of a list; `continue` of its metadata leads to the next one."""

    metadata: ListMetadata
    items: NotRequired[list[Found]]


class WatchEvent(TypedDict):
    """`type` is ADDED, MODIFIED, DELETED, BOOKMARK, whose object has nothing but a version, or ERROR, whose object is a status."""

    type: str
    object: Any


class ApiResource(TypedDict):
    """A kind that an API has."""

    name: str


class ApiResourceList(TypedDict, total=False):
    """The kinds of an API."""

    resources: list[ApiResource]


class Schema(TypedDict, total=False):
    """Of an object's fields."""

    properties: Mapping[str, "Schema"]


class SchemasByName(TypedDict):
    """The part of an OpenAPI document that others refer to."""

    schemas: Mapping[str, Schema]


class OpenApi(TypedDict):
    """An OpenAPI document of version 3."""

    components: SchemasByName


class ReviewStatus(TypedDict, total=False):
    """The answer to a review."""

    allowed: bool


class AccessReview(TypedDict, total=False):
    """A SelfSubjectAccessReview that was answered."""

    status: ReviewStatus
