import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lorafleet.v1 import spec_pb2 as _spec_pb2
from lorafleet.v1 import training_service_pb2 as _training_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerationSpec(_message.Message):
    __slots__ = ("base_model", "adapters", "weights", "prompts", "negative_prompts", "seeds", "width", "height", "num_inference_steps", "guidance_scale", "scheduler", "precision", "force", "cluster", "scheduling", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULING_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    base_model: _spec_pb2.BaseModelSpec
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterSet]
    weights: _containers.RepeatedScalarFieldContainer[float]
    prompts: _containers.RepeatedScalarFieldContainer[str]
    negative_prompts: _containers.RepeatedScalarFieldContainer[str]
    seeds: _containers.RepeatedScalarFieldContainer[int]
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str
    precision: str
    force: bool
    cluster: _spec_pb2.ClusterSpec
    scheduling: _spec_pb2.SchedulingSpec
    labels: _containers.ScalarMap[str, str]
    def __init__(self, base_model: _Optional[_Union[_spec_pb2.BaseModelSpec, _Mapping]] = ..., adapters: _Optional[_Iterable[_Union[AdapterSet, _Mapping]]] = ..., weights: _Optional[_Iterable[float]] = ..., prompts: _Optional[_Iterable[str]] = ..., negative_prompts: _Optional[_Iterable[str]] = ..., seeds: _Optional[_Iterable[int]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., num_inference_steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., scheduler: _Optional[str] = ..., precision: _Optional[str] = ..., force: _Optional[bool] = ..., cluster: _Optional[_Union[_spec_pb2.ClusterSpec, _Mapping]] = ..., scheduling: _Optional[_Union[_spec_pb2.SchedulingSpec, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AdapterSet(_message.Message):
    __slots__ = ("uses",)
    USES_FIELD_NUMBER: _ClassVar[int]
    uses: _containers.RepeatedCompositeFieldContainer[AdapterUse]
    def __init__(self, uses: _Optional[_Iterable[_Union[AdapterUse, _Mapping]]] = ...) -> None: ...

class AdapterUse(_message.Message):
    __slots__ = ("uri", "weight")
    URI_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    uri: str
    weight: float
    def __init__(self, uri: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class ResolvedAdapter(_message.Message):
    __slots__ = ("name", "version", "uri", "manifest_sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    uri: str
    manifest_sha256: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., uri: _Optional[str] = ..., manifest_sha256: _Optional[str] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("name", "uid", "spec", "state", "reason", "message", "progress", "attempts", "artifact", "output_uri", "create_time", "first_picture_time", "end_time", "update_time", "etag", "queue_position", "resolved_adapters", "num_pictures")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    FIRST_PICTURE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    NUM_PICTURES_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    spec: GenerationSpec
    state: _training_service_pb2.JobState
    reason: str
    message: str
    progress: _training_service_pb2.Progress
    attempts: _containers.RepeatedCompositeFieldContainer[_training_service_pb2.Attempt]
    artifact: _training_service_pb2.Artifact
    output_uri: str
    create_time: _timestamp_pb2.Timestamp
    first_picture_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    queue_position: int
    resolved_adapters: _containers.RepeatedCompositeFieldContainer[ResolvedAdapter]
    num_pictures: int
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., spec: _Optional[_Union[GenerationSpec, _Mapping]] = ..., state: _Optional[_Union[_training_service_pb2.JobState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., progress: _Optional[_Union[_training_service_pb2.Progress, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[_training_service_pb2.Attempt, _Mapping]]] = ..., artifact: _Optional[_Union[_training_service_pb2.Artifact, _Mapping]] = ..., output_uri: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_picture_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ..., queue_position: _Optional[int] = ..., resolved_adapters: _Optional[_Iterable[_Union[ResolvedAdapter, _Mapping]]] = ..., num_pictures: _Optional[int] = ...) -> None: ...

class CreateGenerationRequest(_message.Message):
    __slots__ = ("parent", "generation", "generation_id", "request_id", "validate_only")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    generation: Generation
    generation_id: str
    request_id: str
    validate_only: bool
    def __init__(self, parent: _Optional[str] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ..., generation_id: _Optional[str] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class GetGenerationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListGenerationsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter", "order_by")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    order_by: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ...) -> None: ...

class ListGenerationsResponse(_message.Message):
    __slots__ = ("generations", "next_page_token")
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    generations: _containers.RepeatedCompositeFieldContainer[Generation]
    next_page_token: str
    def __init__(self, generations: _Optional[_Iterable[_Union[Generation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelGenerationRequest(_message.Message):
    __slots__ = ("name", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class WatchGenerationsRequest(_message.Message):
    __slots__ = ("parent", "name", "resume_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    name: str
    resume_token: str
    def __init__(self, parent: _Optional[str] = ..., name: _Optional[str] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchGenerationsResponse(_message.Message):
    __slots__ = ("generation", "resume_token", "snapshot")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    generation: Generation
    resume_token: str
    snapshot: bool
    def __init__(self, generation: _Optional[_Union[Generation, _Mapping]] = ..., resume_token: _Optional[str] = ..., snapshot: _Optional[bool] = ...) -> None: ...

class SignGenerationRequest(_message.Message):
    __slots__ = ("name", "expire_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    expire_s: int
    def __init__(self, name: _Optional[str] = ..., expire_s: _Optional[int] = ...) -> None: ...

class SignGenerationResponse(_message.Message):
    __slots__ = ("files", "manifest_sha256", "expire_time")
    FILES_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[_training_service_pb2.SignedFile]
    manifest_sha256: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, files: _Optional[_Iterable[_Union[_training_service_pb2.SignedFile, _Mapping]]] = ..., manifest_sha256: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
