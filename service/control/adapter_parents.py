"""Tells what a version was made of: by its job's spec, by its manifest, or by who imports it. Pure.

Each parent is a mapping with `name` (of a version) or `uri`, and `digest` and `weight` where they are known.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lorafleet.spec_words import RESOURCE_ID

MAX_PARENTS = 64  # of one version: what a message shows of it has a bound
_VERSION = re.compile(rf"tenants/(?P<tenant>{RESOURCE_ID})/adapters/{RESOURCE_ID}/versions/[1-9][0-9]{{0,8}}")

Parent = dict[str, Any]


def start_of(spec: object) -> Mapping[str, Any]:
    """What a stored spec goes on from, as it was filled in; empty: it begins anew."""
    adapter = _mapping(_mapping(spec).get("adapter"))
    return _mapping(adapter.get("start"))


def of_start(start: Mapping[str, Any], versions_of_jobs: Mapping[str, str]) -> list[Parent]:
    """The parent of what was trained from there. `versions_of_jobs`: names of versions, by the ids of the jobs that made them."""
    named = start.get("adapter") or versions_of_jobs.get(job_of(start))
    where = {"name": named} if named else {"uri": start.get("uri")}
    found = {**where, "digest": start.get("digest")}
    return [{key: value for key, value in found.items() if value}] if named or start.get("uri") else []


def job_of(start: Mapping[str, Any]) -> str:
    """The id of the job that it names; empty: none."""
    return str(start.get("job") or "").rpartition("/")[2]


def together(tenant: str, *lists: Sequence[Parent]) -> list[Parent]:
    """All that are told, each once; names of versions that are not the tenant's say nothing to it, and are left out."""
    found: dict[str, Parent] = {}
    for parent in (each for some in lists for each in some):
        match = _VERSION.fullmatch(str(parent.get("name", "")))
        if match is not None and match["tenant"] != tenant:
            continue
        kept = parent if match is not None else {key: value for key, value in parent.items() if key != "name"}
        if key := str(kept.get("name") or kept.get("uri") or ""):
            found[key] = {**found.get(key, {}), **kept}
    return list(found.values())[:MAX_PARENTS]


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
