"""Checks rules of a spec that only the store can tell. Cheap: a few small calls, all at once."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from lorafleet.catalog.single_file import ENDING, not_taken
from lorafleet.contract.confined_files import root_of_base, root_of_part
from lorafleet.contract.layout import MANIFEST, JobLayout, job_root, join
from lorafleet.errors import InvalidSpec, Violation
from service.core.group_commit import Coalescer
from service.store.client import Store, StoreError

MODEL_INDEX = "model_index.json"


@dataclass(frozen=True)
class Shared:
    """What jobs that are submitted at the same time mostly have in common: a store, and folders in it."""

    store: Store
    base_model_uri: str
    datasets: tuple[tuple[str, str], ...]  # (field, URI) of folders of pictures
    probed_uri: str  # the folder in which a probe tells whether the output can be written
    parts: tuple[tuple[str, str], ...] = ()  # (field, URI) of parts of the base that lie elsewhere


class StoreChecks:
    """Asks stores. What several waiting jobs want to know is asked once."""

    def __init__(self) -> None:
        self._ask = Coalescer[Shared, tuple[Violation | None, ...]](_ask_once)

    async def check(self, shared: Shared, output_uri: str | None, *, also: Sequence[Violation] = ()) -> None:
        """Raises InvalidSpec with every violation found, and those that are known `also`, and Unavailable when a store does not
        answer. `output_uri`: None for a folder that has never had a job, which need not be looked into."""
        if output_uri is None:
            found = await self._ask(shared, shared)
        else:
            own = checked("output.uri", no_artifact, shared.store, output_uri)
            of_inputs, artifact = await asyncio.gather(self._ask(shared, shared), own)
            found = (*of_inputs, artifact)
        violations = list(dict.fromkeys(violation for violation in (*also, *found) if violation is not None))
        if violations:
            raise InvalidSpec(violations)


async def _ask_once(calls: Sequence[Shared]) -> list[tuple[Violation | None, ...]]:
    shared = calls[0]
    found = await asyncio.gather(
        checked("base_model.uri", base_model, shared.store, shared.base_model_uri),
        *(checked(f"base_model.{field}", part, shared.store, uri) for field, uri in shared.parts),
        *(checked(f"dataset.{field}", dataset, shared.store, uri) for field, uri in shared.datasets),
        checked("output.uri", writable, shared.store, shared.probed_uri),
    )
    return [tuple(found)] * len(calls)


async def checked(field: str, check: Callable[[Store, str], Awaitable[str | None]], store: Store, uri: str) -> Violation | None:
    """What a check finds wrong, at that field; None: nothing."""
    try:
        problem = await check(store, uri)
    except StoreError as error:
        problem = error.message
    return None if problem is None else Violation(field=field, message=problem)


async def base_model(store: Store, uri: str) -> str | None:
    """What is wrong with it, for its user to read; None: nothing. The checks below answer likewise."""
    if uri.endswith(ENDING):
        store = store.within(root_of_part(uri.rpartition("/")[0]))
        return None if await store.exists(uri) else f"there is no {uri}"
    store = store.within(root_of_base(uri))
    if await store.is_empty(uri):
        if what := not_taken(uri):
            return f"{uri} {what}"
        return f"nothing lies under {uri}; name the folder that holds {MODEL_INDEX}, or a {ENDING} file"
    if not await store.exists(join(uri, MODEL_INDEX)):
        return f"{uri} has no {MODEL_INDEX}; name a base model in diffusers' folder layout"
    return None


async def part(store: Store, uri: str) -> str | None:
    return f"nothing lies under {uri}; name the folder of the part itself" if await store.within(root_of_part(uri)).is_empty(uri) else None


async def adapter(store: Store, uri: str) -> str | None:
    if uri.endswith(ENDING):
        return None if await store.within(uri.rpartition("/")[0]).exists(uri) else f"there is no {uri}"
    return f"nothing lies under {uri}; name an adapter file, or its folder" if await store.within(uri).is_empty(uri) else None


async def dataset(store: Store, uri: str) -> str | None:
    if await store.is_empty(uri):
        return f"nothing lies under {uri}; put pictures there, with metadata.jsonl, metadata.csv or a .txt file beside each"
    return None


async def no_artifact(store: Store, uri: str) -> str | None:
    return f"{uri} holds an artifact already; choose another folder" if await has_artifact(store, uri) else None


async def has_artifact(store: Store, output_uri: str) -> bool:
    return await store.within(output_uri).exists(join(JobLayout(output_uri).adapter, MANIFEST))


async def writable(store: Store, uri: str) -> str | None:
    """Writes and deletes a probe: a job that trains for hours and cannot save would be worse."""
    probe = join(uri, f".lorafleet-probe-{secrets.token_hex(8)}")
    await store.put(probe, b"")
    await store.delete(probe)
    return None


def probed_folder(output: str | None, output_uri: str, tenant: str, artifacts_uri: str) -> str:
    """The folder in which a probe tells whether a job's output can be written: one for many jobs. `output`: what its spec says."""
    if output is None:
        return job_root(artifacts_uri, f"tenants/{tenant}/jobs")
    parent, _, _ = output_uri.rpartition("/")
    has_parent = "/" in output_uri.split("://", 1)[1].strip("/")
    return parent if has_parent else output_uri
