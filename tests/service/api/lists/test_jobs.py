"""ListTrainingJobs: stable pages, bound tokens, and filters that are no way into the database."""

import pytest

from lorafleet.errors import InvalidInput
from lorafleet.v1 import training_service_pb2 as pb
from service.api.lists.filters import parse_filter
from service.api.lists.jobs import list_jobs
from tests.service.world import World


async def listed(world: World, **fields) -> list[str]:
    request = pb.ListTrainingJobsRequest(parent="tenants/acme", **fields)
    return [job.name.rsplit("/", 1)[-1] for job in (await list_jobs(world.tools.db, request)).training_jobs]


async def some_jobs(world: World, count: int = 5) -> None:
    for place in range(count):
        await world.submit(f"job-{place}", labels={"team": "red" if place % 2 else "blue"})
        world.clock.advance(60)


async def test_pages_are_whole_and_stable_while_jobs_are_added(world: World):
    await some_jobs(world)
    request = pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=2)
    seen: list[str] = []
    while True:
        page = await list_jobs(world.tools.db, request)
        seen += [job.name.rsplit("/", 1)[-1] for job in page.training_jobs]
        if not page.next_page_token:
            break
        await world.submit()  # newer than all: on a page that is behind us
        request.page_token = page.next_page_token
    assert seen == ["job-4", "job-3", "job-2", "job-1", "job-0"]


async def test_jobs_of_one_moment_are_paged_too(world: World):
    names = {(await world.submit(f"job-{place}")).job_id for place in range(5)}
    request = pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=2, order_by="create_time")
    seen: list[str] = []
    for _ in range(3):
        page = await list_jobs(world.tools.db, request)
        seen += [job.name.rsplit("/", 1)[-1] for job in page.training_jobs]
        request.page_token = page.next_page_token
    assert (len(seen), set(seen), request.page_token) == (5, names, "")


@pytest.mark.parametrize("change", [{"filter": "state = RUNNING"}, {"order_by": "create_time"}, {"parent": "tenants/other"}])
async def test_a_token_of_another_query_is_refused(world: World, change: dict[str, str]):
    await some_jobs(world, 3)
    token = (await list_jobs(world.tools.db, pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=1))).next_page_token
    request = pb.ListTrainingJobsRequest(**{"parent": "tenants/acme", "page_size": 1, "page_token": token, **change})
    with pytest.raises(InvalidInput) as refused:
        await list_jobs(world.tools.db, request)
    assert refused.value.reason == "BAD_PAGE_TOKEN"


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "eyJxdWVyeSI6IjEifQ", "=" * 50])
async def test_a_bad_page_token_is_refused(world: World, token: str):
    with pytest.raises(InvalidInput) as refused:
        await listed(world, page_token=token)
    assert refused.value.reason == "BAD_PAGE_TOKEN"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", 5),
        ("state = QUEUED", 5),
        ("state = JOB_STATE_QUEUED", 5),
        ("state != QUEUED", 0),
        ('labels.team = "red"', 2),
        ("labels.team=red", 2),
        ('labels.team != "red"', 3),
        ('labels.nothing != "red"', 5),
        ('labels.nothing = "red"', 0),
        ('state = QUEUED AND labels.team = "blue"', 3),
        ('create_time >= "2026-01-01T00:02:00Z"', 3),
        ('create_time < "2026-01-01T00:02:00Z" AND create_time > "2026-01-01T00:00:00+00:00"', 1),
        ("state = RUNNING OR state = QUEUED", 5),
        ('NOT (labels.team = "red" OR labels.nothing = "x")', 3),
        ("labels.team = \"red' OR '1'='1\"", 0),
        ('labels.team = "a\\"b"', 0),
    ],
)
async def test_a_filter_finds(world: World, text: str, found: int):
    await some_jobs(world)
    assert len(await listed(world, filter=text)) == found


@pytest.mark.parametrize(
    "text",
    [
        "state",
        "state =",
        "state = NONSENSE",
        "state < QUEUED",
        "uid = 1",
        "labels = 1",
        "labels.'; DROP TABLE jobs; -- = 1",
        "state = QUEUED AND",
        "NOT labels.team",
        'create_time > "yesterday"',
        'labels.team = "open',
        "x" * 3000,
        " AND ".join(["state = QUEUED"] * 21),
    ],
)
def test_a_bad_filter_is_refused(text: str):
    with pytest.raises(InvalidInput) as refused:
        parse_filter(text)
    assert refused.value.reason == "BAD_FILTER"


async def test_bad_order_and_page_size_are_refused(world: World):
    with pytest.raises(InvalidInput):
        await listed(world, order_by="state")
    with pytest.raises(InvalidInput):
        await listed(world, page_size=-1)
