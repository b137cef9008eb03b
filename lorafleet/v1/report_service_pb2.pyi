import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from lorafleet.v1 import training_service_pb2 as _training_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StyleOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STYLE_OUTCOME_UNSPECIFIED: _ClassVar[StyleOutcome]
    STYLE_OUTCOME_SUCCEEDED: _ClassVar[StyleOutcome]
    STYLE_OUTCOME_FAILED: _ClassVar[StyleOutcome]
    STYLE_OUTCOME_STOPPED: _ClassVar[StyleOutcome]

class DirectiveAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTIVE_ACTION_UNSPECIFIED: _ClassVar[DirectiveAction]
    DIRECTIVE_ACTION_STOP: _ClassVar[DirectiveAction]
    DIRECTIVE_ACTION_RELEASE: _ClassVar[DirectiveAction]
STYLE_OUTCOME_UNSPECIFIED: StyleOutcome
STYLE_OUTCOME_SUCCEEDED: StyleOutcome
STYLE_OUTCOME_FAILED: StyleOutcome
STYLE_OUTCOME_STOPPED: StyleOutcome
DIRECTIVE_ACTION_UNSPECIFIED: DirectiveAction
DIRECTIVE_ACTION_STOP: DirectiveAction
DIRECTIVE_ACTION_RELEASE: DirectiveAction

class ReportRequest(_message.Message):
    __slots__ = ("run", "source", "events", "idle")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    run: str
    source: str
    events: _containers.RepeatedCompositeFieldContainer[RunEvent]
    idle: bool
    def __init__(self, run: _Optional[str] = ..., source: _Optional[str] = ..., events: _Optional[_Iterable[_Union[RunEvent, _Mapping]]] = ..., idle: _Optional[bool] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("sequence", "time", "job", "progress", "resumed", "ended")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    job: str
    progress: _training_service_pb2.Progress
    resumed: Resumed
    ended: StyleEnded
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., job: _Optional[str] = ..., progress: _Optional[_Union[_training_service_pb2.Progress, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ..., ended: _Optional[_Union[StyleEnded, _Mapping]] = ...) -> None: ...

class Resumed(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class StyleEnded(_message.Message):
    __slots__ = ("outcome", "reason", "message", "retryable", "artifact", "step")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    outcome: StyleOutcome
    reason: str
    message: str
    retryable: bool
    artifact: _training_service_pb2.Artifact
    step: int
    def __init__(self, outcome: _Optional[_Union[StyleOutcome, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., retryable: _Optional[bool] = ..., artifact: _Optional[_Union[_training_service_pb2.Artifact, _Mapping]] = ..., step: _Optional[int] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("acked_sequence", "directives", "next_report_s", "next_run", "joining", "token")
    ACKED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    NEXT_REPORT_S_FIELD_NUMBER: _ClassVar[int]
    NEXT_RUN_FIELD_NUMBER: _ClassVar[int]
    JOINING_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    acked_sequence: int
    directives: _containers.RepeatedCompositeFieldContainer[Directive]
    next_report_s: float
    next_run: NextRun
    joining: _containers.RepeatedCompositeFieldContainer[JoiningStyle]
    token: str
    def __init__(self, acked_sequence: _Optional[int] = ..., directives: _Optional[_Iterable[_Union[Directive, _Mapping]]] = ..., next_report_s: _Optional[float] = ..., next_run: _Optional[_Union[NextRun, _Mapping]] = ..., joining: _Optional[_Iterable[_Union[JoiningStyle, _Mapping]]] = ..., token: _Optional[str] = ...) -> None: ...

class NextRun(_message.Message):
    __slots__ = ("run", "manifest_uri", "token")
    RUN_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_URI_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    run: str
    manifest_uri: str
    token: str
    def __init__(self, run: _Optional[str] = ..., manifest_uri: _Optional[str] = ..., token: _Optional[str] = ...) -> None: ...

class JoiningStyle(_message.Message):
    __slots__ = ("job", "style_json")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STYLE_JSON_FIELD_NUMBER: _ClassVar[int]
    job: str
    style_json: str
    def __init__(self, job: _Optional[str] = ..., style_json: _Optional[str] = ...) -> None: ...

class Directive(_message.Message):
    __slots__ = ("job", "action")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    job: str
    action: DirectiveAction
    def __init__(self, job: _Optional[str] = ..., action: _Optional[_Union[DirectiveAction, str]] = ...) -> None: ...
