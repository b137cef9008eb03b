"""What the threat model lists of bad input: refused by name, harmless, and nobody else's trouble."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorafleet.errors import InvalidInput, InvalidSpec
from lorafleet.v1 import training_service_pb2 as pb
from service.api import opaque_tokens
from service.api.lists import paging
from service.api.lists.filters import parse_filter
from service.api.lists.jobs import list_jobs
from service.api.watch import resume_tokens
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import Scope
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.world import World, progress, succeeded

PATHS = [
    "file:///data/../etc",
    "file:///data/./x",
    "file:///data//x",
    "file:///data/%2e%2e/etc",
    "file:///data/%2E%2E%2Fetc",
    "file:///data/..%2fetc",
    "file:///data\\..\\etc",
    "file:///data/\x00",
    "file:///data/a\nb",
    "file://host/data",
    "file:data",
    "s3://bucket/../other-bucket/x",
    "s3://bucket/x?versionId=1",
    "s3://bucket/x#y",
    "s3://BUCKET/x",
    "s3://../x",
    "s3://b\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x",
    "s3:///x",
    "http://169.254.169.254/latest",
    "FILE:///etc",
    "",
    "file:///" + "a/" * 3000,
]


@pytest.mark.parametrize("uri", PATHS)
async def test_a_path_trick_is_refused_in_every_field_that_takes_a_uri(api: Api, uri: str):
    request = api.request()
    spec = request.training_job.spec
    spec.base_model.uri = spec.dataset.uri = spec.output.uri = uri
    answer = await refusal(api.jobs.CreateTrainingJob(request))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_SPEC")
    assert {"base_model.uri", "dataset.uri", "output.uri"} <= set(answer.fields)


async def test_dots_that_only_look_like_dots_are_a_name_like_any_other(api: Api):
    """They lead nowhere: the folder of that very name is looked for, and is not there."""
    request = api.request()
    request.training_job.spec.dataset.uri = f"file://{api.world.folder}/pictures/\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}"
    assert list((await refusal(api.jobs.CreateTrainingJob(request))).fields) == ["dataset.uri"]


@pytest.mark.parametrize(
    "labels",
    [
        {f"k{place}": "v" for place in range(65)},
        {"k": "v" * 256},
        {"k" * 64: "v"},
        {"k": "\x00"},
        {"k'); DROP TABLE jobs; --": "v"},
        {"\N{CYRILLIC SMALL LETTER A}": "v"},
    ],
)
async def test_label_bombs_are_refused(api: Api, labels: dict[str, str]):
    request = api.request()
    request.training_job.spec.labels.update(labels)
    assert (await refusal(api.jobs.CreateTrainingJob(request))).reason == "INVALID_SPEC"


def test_texts_of_a_spec_have_an_end():
    from lorafleet import spec

    base = {"base_model": {"uri": "file:///b"}, "dataset": {"uri": "file:///d"}}
    for changed in (
        {"validation": {"prompts": ["x" * 2001]}},
        {"validation": {"prompts": ["a\x00"]}},
        {"dataset": {"uri": "file:///d", "trigger_phrase": "\x00"}},
        {"adapter": {"target_modules": ["m" * 201]}},
    ):
        with pytest.raises(InvalidSpec):
            spec.parse({**base, **changed})


async def test_a_page_is_never_larger_than_a_thousand_jobs(world: World):
    await world.submit()
    for size in (2**31 - 1, 1001):
        assert paging.size_of(size) == 1000
        assert len((await list_jobs(world.tools.db, pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=size))).training_jobs) == 1


@pytest.mark.parametrize(
    "text", ["(" * 900 + "state = RUNNING", "NOT " * 400 + "state = RUNNING", 'labels.a = "\x00"', "state = RUNNING;--"]
)
def test_a_filter_that_is_deep_or_odd_is_refused(text: str):
    with pytest.raises(InvalidInput):
        parse_filter(text)


@pytest.mark.parametrize(
    "values",
    [
        {"time": "x", "uid": "a" * 32},
        {"time": 10**30, "uid": "a" * 32},
        {"time": 0, "uid": "'; DROP TABLE jobs; --"},
        {"time": 0, "uid": "\x00" * 32},
        {"time": 0},
        {"time": 0, "uid": ["a"]},
    ],
)
async def test_a_page_token_made_by_somebody_else_is_refused(world: World, values: dict):
    """The sum in it is no secret: it tells accidents, not forgeries."""
    token = paging.token(("tenants/acme", "", ""), **values)
    with pytest.raises(InvalidInput) as refused:
        await list_jobs(world.tools.db, pb.ListTrainingJobsRequest(parent="tenants/acme", page_token=token))
    assert refused.value.reason == "BAD_PAGE_TOKEN"


@pytest.mark.parametrize("values", [{}, {"instance": 1, "seq": 1, "snapshot": False}, {"instance": "i", "seq": "1", "snapshot": False}])
def test_a_resume_token_made_by_somebody_else_is_refused(values: dict):
    scope = Scope(tenant="acme")
    with pytest.raises(InvalidInput) as refused:
        resume_tokens.values(scope, opaque_tokens.pack({**scope.values(), **values}))
    assert refused.value.reason == "BAD_RESUME_TOKEN"


@pytest.mark.parametrize("token", ["A" * 100_000, opaque_tokens.pack({"a": 1}) + "A" * 4000])
def test_a_token_of_any_length_costs_nothing(token: str):
    with pytest.raises(opaque_tokens.BadToken):
        opaque_tokens.unpack(token)


def test_values_that_are_no_object_are_no_token():
    with pytest.raises(opaque_tokens.BadToken):
        opaque_tokens.unpack(opaque_tokens.pack([1]))  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(size=st.integers(1, 4), inserts=st.lists(st.integers(0, 2), min_size=12, max_size=12), newest_first=st.booleans())
async def test_pages_show_each_job_that_was_there_once_whatever_is_created_meanwhile(
    world: World, size: int, inserts: list[int], newest_first: bool
):
    for _ in range(3):
        await world.submit()
        world.clock.advance(1)
    request = pb.ListTrainingJobsRequest(
        parent="tenants/acme", page_size=1000, order_by="create_time desc" if newest_first else "create_time"
    )
    before = [job.name for job in (await list_jobs(world.tools.db, request)).training_jobs]
    request.page_size, seen = max(size, len(before) // 10), []
    for place in range(1000):
        page = await list_jobs(world.tools.db, request)
        seen += [job.name for job in page.training_jobs]
        if not page.next_page_token:
            break
        for _ in range(inserts[place] if place < len(inserts) else 0):
            await world.submit()
            world.clock.advance(1)
        request.page_token = page.next_page_token
    assert len(seen) == len(set(seen))
    assert [name for name in seen if name in set(before)] == before


@pytest.mark.parametrize("jump_s", [-86400.0 * 400, -3600.0, 3600.0 * 5])
async def test_a_clock_that_jumps_loses_and_doubles_nothing(world: World, jump_s: float):
    """Leases, heartbeats, back-off: at worst a run is tried again; one attempt lives at a time, and the job ends once."""
    name, run = await world.running("one")
    world.clock.advance(jump_s)
    for _ in range(4):
        await world.settle()
        world.clock.advance(5)
    job = await world.job(name)
    if job.attempts[-1].run == run:
        await world.report(run, progress(2))
    for _ in range(400):  # whatever had to be waited for
        if await world.state(name) == "RUNNING":
            break
        for launched in world.backend.launches[-1:]:
            if (await world.job(name)).attempts[-1].run == launched and await world.state(name) == "STARTING":
                await world.report(launched, progress(1))
        for stopped in world.backend.stops:
            world.backend.end(stopped)
        world.clock.advance(30)
        await world.settle()
    job = await world.job(name)
    assert await world.state(name) == "RUNNING"
    assert len(world.backend.launches) == len(set(world.backend.launches)) == len(job.attempts)
    await world.report(job.attempts[-1].run, succeeded())
    assert await world.state(name) == "SUCCEEDED"


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0 * 2])
async def test_a_watch_goes_on_across_a_clock_that_jumps(world: World, jump_s: float):
    _, run = await world.running("one")
    events = Watch(db=world.tools.db, scope=Scope(tenant="acme"), feed=Feed(world.tools.db, asyncio.Event())).events("")
    async with asyncio.timeout(20):
        while (event := await anext(events)).snapshot:
            pass
        token = event.resume_token
        world.clock.advance(jump_s)
        await world.report(run, progress(2))
        again = Watch(db=world.tools.db, scope=Scope(tenant="acme"), feed=Feed(world.tools.db, asyncio.Event())).events(token)
        assert (await anext(again)).training_job.progress.step == 2
        await again.aclose()
        await events.aclose()
