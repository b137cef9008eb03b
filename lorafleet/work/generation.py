"""Generations: pictures that a server draws. What is asked for is `lorafleet.generation_spec`'s, and how it runs."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lorafleet import generation_spec
from lorafleet.errors import InvalidSpec
from lorafleet.generation_spec import MAX_TOGETHER, AdapterUse, GenerationSpec
from lorafleet.spec import MAX_LABELS, ClusterSpec, SchedulingSpec
from lorafleet.spec_part import SpecPart
from lorafleet.spec_violations import is_consequence, violation
from lorafleet.spec_words import RESOURCE_ID, VERSION, LabelKey, Text, check_uri
from lorafleet.work import Kind

PRIORITY = 20  # people wait for pictures: before jobs that say nothing, in the same class
MAX_ADAPTERS = 256  # different ones in a request: each is looked up while its caller waits
_VERSION = re.compile(rf"(tenants/{RESOURCE_ID}/)?adapters/{VERSION}")


class ServedUse(AdapterUse):
    """An adapter of the registry, or a file."""

    @field_validator("uri")
    @classmethod
    def _uri(cls, uri: str | None) -> str | None:
        if uri is not None and uri.startswith(("tenants/", "adapters/")):
            if _VERSION.fullmatch(uri) is None:
                message = "{uri} is no version; write adapters/ADAPTER@ALIAS or adapters/ADAPTER/versions/NUMBER"
                raise PydanticCustomError("version", message, {"uri": repr(uri[:200])})
            return uri
        return None if uri is None else check_uri(uri)

    @property
    def is_version(self) -> bool:
        return "://" not in self.uri


class Resolved(SpecPart):
    """The version that a name stood for."""

    version: str  # tenants/{tenant}/adapters/{adapter}/versions/{version}
    folder: str
    manifest_sha256: str

    @property
    def label(self) -> str:
        """As pictures show it."""
        return "-v".join(self.version.split("/")[3::2])


ServedSet = Annotated[tuple[ServedUse, ...], Field(max_length=MAX_TOGETHER, strict=False)]


class ServedGeneration(GenerationSpec):
    """A request to a server. Immutable once it is accepted."""

    adapters: Annotated[tuple[ServedSet, ...], Field(min_length=1, strict=False)] = ((),)  # pyright: ignore[reportIncompatibleVariableOverride]
    precision: Literal["fp32", "bf16"] = "fp32"
    force: bool = False
    cluster: ClusterSpec = ClusterSpec()
    scheduling: SchedulingSpec = SchedulingSpec(priority=PRIORITY)
    labels: Annotated[dict[LabelKey, Annotated[Text, Field(max_length=255)]], Field(max_length=MAX_LABELS)] = {}  # noqa: RUF012 - pydantic copies it for each spec
    # By name, as the service has found them: no part of the wire's spec.
    resolved: dict[str, Resolved] = {}  # noqa: RUF012 - pydantic copies it for each spec

    @field_validator("cluster")
    @classmethod
    def _is_one_worker(cls, cluster: ClusterSpec) -> ClusterSpec:
        if cluster.num_workers != 1 or cluster.zero_stage or cluster.offload != "none":
            raise PydanticCustomError("cluster", "pictures are drawn by one worker, at zero_stage 0 and without offload")
        return cluster

    @model_validator(mode="before")
    @classmethod
    def _has_a_priority(cls, fields: Any) -> Any:
        given = cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}
        scheduling = given.get("scheduling")
        if isinstance(scheduling, dict) and "priority" not in scheduling:
            return {**given, "scheduling": {**cast("dict[str, Any]", scheduling), "priority": PRIORITY}}
        return cast(object, fields)

    @model_validator(mode="after")
    def _names_few_adapters(self) -> Self:
        if (number := len({use.uri for _, use in self.uses})) > MAX_ADAPTERS:
            message = "names {number} different adapters; a request has {most} at most"
            raise PydanticCustomError("adapters", message, {"number": number, "most": MAX_ADAPTERS})
        return self

    @property
    def size(self) -> int:
        return self.num_pictures

    @property
    def uses(self) -> list[tuple[str, ServedUse]]:
        """(field, use) of each adapter."""
        return [(f"adapters[{at}][{number}].uri", use) for at, each in enumerate(self.adapters) for number, use in enumerate(each)]

    @property
    def uris(self) -> tuple[str, ...]:
        """All that it reads, once names are resolved."""
        return self.base_model.uri, *self.base_model.part_uris.values(), *dict.fromkeys(self.place_of(use) for _, use in self.uses)

    def place_of(self, use: ServedUse) -> str:
        """Where its file lies. Raises KeyError for a version that was not resolved."""
        return self.resolved[use.uri].folder if use.is_version else use.uri

    def with_resolved(self, resolved: Mapping[str, Resolved]) -> Self:
        return self.model_copy(update={"resolved": dict(resolved)})

    def drawn(self) -> GenerationSpec:
        """The request as files, as `lorafleet generate` draws it. Raises InvalidInput where two names stand for one version."""
        plain = self.model_dump(exclude={"precision", "force", "cluster", "scheduling", "labels", "resolved", "adapters"})
        sets = [[{"uri": self.place_of(use), "weight": use.weight} for use in each] for each in self.adapters]
        return generation_spec.parse({**plain, "adapters": sets})

    def labels_of_files(self) -> dict[str, str]:
        """What pictures call the versions, by their folders: these all have one name."""
        return {each.folder: each.label for each in self.resolved.values()}


def parse(fields: Mapping[str, Any]) -> ServedGeneration:
    """A request from plain values. Raises InvalidSpec with every violation, each with its field path."""
    try:
        return ServedGeneration.model_validate(fields)
    except ValidationError as error:
        found = error.errors()
    raise InvalidSpec([violation(details, ServedGeneration) for details in found if not is_consequence(details, found)])


KIND = Kind(name="generation", collection="generations", one="generation", phase="drawing", folder="pictures", parse=parse)
