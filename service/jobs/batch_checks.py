"""Checks rules of a batch that only the store can tell: each folder is asked after once, however many items name it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from lorafleet.errors import Violation
from service.core.concurrency import bounded
from service.jobs.batch_specs import ItemJob
from service.store import spec_checks
from service.store.client import Store, StoreError

AT_ONCE = 24  # questions to the store; below its own limit, so that other calls get through


async def check_store(store: Store, places: Sequence[ItemJob], tenant: str, artifacts_uri: str) -> list[Violation]:
    """Every violation that the store shows, each where it is to be mended. Raises Unavailable when a store does not answer."""
    bases = await _asked(store, spec_checks.base_model, [place.item.spec.base_model.uri for place in places])
    parts = await _asked(store, spec_checks.part, [uri for place in places for _, uri in place.item.spec.base_model.part_fields])
    datasets = await _asked(store, spec_checks.dataset, [uri for place in places for _, uri in place.item.spec.dataset.uris])
    outputs = await _asked(store, spec_checks.no_artifact, [place.output_uri for place in places])
    parents = {
        place.output_uri: spec_checks.probed_folder(place.item.spec.output.uri, place.output_uri, tenant, artifacts_uri) for place in places
    }
    refusals = await _asked(store, spec_checks.writable, parents.values())
    found: dict[Violation, None] = {}  # what the defaults are to blame for is told once
    for place in places:
        spec, blame = place.item.spec, place.item.blame
        _note(found, blame("base_model", "uri"), bases.get(spec.base_model.uri))
        for field, uri in spec.base_model.part_fields:
            _note(found, blame("base_model", field), parts.get(uri))
        for field, uri in spec.dataset.uris:
            _note(found, blame("dataset", field.partition(".")[0]), datasets.get(uri))
        _note(found, place.output_field, outputs.get(place.output_uri))
        _note(found, blame("output", "uri"), refusals.get(parents[place.output_uri]))
    return list(found)


async def _asked(store: Store, check: Callable[[Store, str], Awaitable[str | None]], uris: Iterable[str]) -> Mapping[str, str]:
    """What is wrong, by URI."""

    async def problem(uri: str) -> str | None:
        try:
            return await check(store, uri)
        except StoreError as error:
            return error.message

    distinct = list(dict.fromkeys(uris))
    problems = await bounded(problem, distinct, AT_ONCE)
    return {uri: problem for uri, problem in zip(distinct, problems, strict=True) if problem is not None}


def _note(found: dict[Violation, None], field: str, problem: str | None) -> None:
    if problem is not None:
        found[Violation(field=field, message=problem)] = None
