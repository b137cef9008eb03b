"""Tells what a finished job's version is: which adapter's, and what its spec says of it. Pure; a spec that is damaged says less."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from lorafleet.spec_words import RESOURCE_ID


class VersionState(StrEnum):
    """The states of the proto's AdapterVersionState, without its prefix."""

    PENDING = "PENDING"
    READY = "READY"
    DAMAGED = "DAMAGED"
    PURGED = "PURGED"


@dataclass(frozen=True, kw_only=True)
class AdapterFacts:
    """What an adapter can be found by."""

    family: str = ""
    method: str = ""
    rank: int = 0
    trigger: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


def adapter_of(spec: object, job_id: str) -> str:
    """The id of the adapter that a job's artifact becomes a version of."""
    named = _section(spec, "output").get("adapter")
    return named if isinstance(named, str) and re.fullmatch(RESOURCE_ID, named) else job_id


def is_ours(spec: object) -> bool:
    """Whether the files lie where the service put them: what a user named as the output is the user's."""
    return _mapping(spec).get("output") is not None and _section(spec, "output").get("uri") is None


def facts_of(spec: object, labels: object) -> AdapterFacts:
    """What a stored spec says. It was checked when it was accepted, perhaps by an older server: what is odd is left out."""
    adapter = _section(spec, "adapter")
    rank = adapter.get("rank")
    return AdapterFacts(
        family=_text(_section(spec, "base_model").get("family")),
        method=_text(adapter.get("method")),
        rank=rank if isinstance(rank, int) and 0 <= rank < 2**31 else 0,
        trigger=_text(_section(spec, "dataset").get("trigger_phrase")),
        labels={key: value for key, value in _mapping(labels).items() if isinstance(value, str)},
    )


def _section(spec: object, name: str) -> Mapping[str, Any]:
    return _mapping(_mapping(spec).get(name))


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
