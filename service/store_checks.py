"""Rules of a spec that only the store can tell. Cheap: a few small calls, all at once."""

import asyncio
import secrets
from collections.abc import Awaitable, Sequence

from lorafleet.errors import InvalidSpec, Violation
from lorafleet.layout import MANIFEST, JobLayout, join
from lorafleet.spec import Spec
from service.storage import Store, StoreError

MODEL_INDEX = "model_index.json"


async def check_store(store: Store, spec: Spec, output_uri: str, *, also: Sequence[Violation] = ()) -> None:
    """Raises InvalidSpec with every violation found, and those that are known `also`, and Unavailable when a store does not answer."""
    found = await asyncio.gather(
        _checked("base_model.uri", base_model(store, spec.base_model.uri)),
        _checked("dataset.uri", dataset(store, spec.dataset.uri)),
        _checked("output.uri", _output(store, output_uri)),
    )
    violations = [*also, *(violation for violation in found if violation is not None)]
    if violations:
        raise InvalidSpec(violations)


async def _checked(field: str, check: Awaitable[str | None]) -> Violation | None:
    try:
        problem = await check
    except StoreError as error:
        problem = error.message
    return None if problem is None else Violation(field=field, message=problem)


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


async def _output(store: Store, uri: str) -> str | None:
    return await no_artifact(store, uri) or await writable(store, uri)


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
