"""Rules of a spec that only the store can tell. Cheap: a few small calls, all at once."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence

from lorafleet.errors import InvalidSpec, Violation
from lorafleet.layout import MANIFEST, JobLayout, job_root, join
from lorafleet.spec import Spec
from service.coalescing import Coalescer
from service.storage import Store, StoreError

MODEL_INDEX = "model_index.json"


Check = Callable[[Store, str], Awaitable[str | None]]


class StoreChecks:
    """Asks stores. Jobs that are submitted at the same time mostly name the same base, data set and folder: equal questions that
    wait for each other are asked once."""

    def __init__(self) -> None:
        self._ask = Coalescer[tuple[Store, Check, str], str | None](_ask_once)

    async def check(self, store: Store, spec: Spec, output_uri: str, parent_uri: str, *, also: Sequence[Violation] = ()) -> None:
        """Raises InvalidSpec with every violation found, and those that are known `also`, and Unavailable when a store does not
        answer. `parent_uri`: the folder in which a probe tells whether `output_uri` can be written."""
        found = await asyncio.gather(
            self._checked("base_model.uri", store, base_model, spec.base_model.uri),
            self._checked("dataset.uri", store, dataset, spec.dataset.uri),
            self._checked("output.uri", store, no_artifact, output_uri),
            self._checked("output.uri", store, writable, parent_uri),
        )
        violations = list(dict.fromkeys([*also, *(violation for violation in found if violation is not None)]))
        if violations:
            raise InvalidSpec(violations)

    async def _checked(self, field: str, store: Store, check: Check, uri: str) -> Violation | None:
        try:
            problem = await self._ask((store, check, uri), (store, check, uri))
        except StoreError as error:
            problem = error.message
        return None if problem is None else Violation(field=field, message=problem)


async def _ask_once(calls: Sequence[tuple[Store, Check, str]]) -> list[str | None]:
    store, check, uri = calls[0]
    return [await check(store, uri)] * len(calls)


async def base_model(store: Store, uri: str) -> str | None:
    """What is wrong with it, for its user to read; None: nothing. The checks below answer likewise."""
    if await store.is_empty(uri):
        return f"nothing lies under {uri}; name the folder that holds {MODEL_INDEX}"
    if not await store.exists(join(uri, MODEL_INDEX)):
        return f"{uri} has no {MODEL_INDEX}; name a base model in diffusers' folder layout"
    return None


async def dataset(store: Store, uri: str) -> str | None:
    if await store.is_empty(uri):
        return f"nothing lies under {uri}; put pictures there, with metadata.jsonl, metadata.csv or a .txt file beside each"
    return None


async def no_artifact(store: Store, uri: str) -> str | None:
    if await store.exists(join(JobLayout(uri).adapter, MANIFEST)):
        return f"{uri} holds an artifact already; choose another folder"
    return None


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
