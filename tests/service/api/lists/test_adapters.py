"""Lists of adapters: filters find what they say, pages are whole and stable, and tokens are good for their own query alone."""

import pytest

from lorafleet.errors import InvalidInput, NotFound
from lorafleet.v1 import adapter_service_pb2 as pb
from service.api.lists.adapters import list_adapters, list_versions
from tests.service.registry.made import make_version
from tests.service.world import World


async def ids(world: World, **fields) -> list[str]:
    page = await list_adapters(world.tools.db, pb.ListAdaptersRequest(parent="tenants/acme", **fields))
    return [adapter.name.rpartition("/")[2] for adapter in page.adapters]


@pytest.fixture
async def shelf(world: World) -> World:
    """Three adapters of acme's, of which the last is the oldest, and one of another tenant's by the same name."""
    db = world.tools.db
    await make_version(db, "badger", age_s=30, family="sdxl", method="dora", rank=8, labels={"team": "red"}, quality={"clip": 0.5})
    await make_version(db, "ant", age_s=20, family="sd1", base_digest="abc", trigger="an ant", quality={"clip": 0.9})
    await make_version(db, "crow", age_s=10, family="sdxl", rank=32, labels={"team": "blue"})
    await make_version(db, "crow", "globex", family="sdxl")
    return world


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "crow ant badger"),
        ("family = sdxl", "crow badger"),
        ("family = sdxl AND NOT labels.team = red", "crow"),
        ("method != lora", "badger"),
        ('base_digest = abc OR trigger = "an ant"', "ant"),
        ("rank >= 16", "crow ant"),
        ("rank < 16", "badger"),
        ("quality.clip > 0.5", "ant"),
        ("NOT quality.clip > 0.5", "badger"),
        ("quality.clip != 0.5", "crow ant"),
        ("labels.team != red", "crow ant"),
        ('create_time > "2000-01-01"', "crow ant badger"),
    ],
)
async def test_a_filter_finds(shelf: World, text: str, found: str):
    assert await ids(shelf, filter=text) == found.split()


@pytest.mark.parametrize("text", ["state = READY", "rank = high", "rank = nan", "family < sdxl", "quality.Clip = 1", "quality.clip = x"])
async def test_a_filter_that_means_nothing_is_refused(world: World, text: str):
    with pytest.raises(InvalidInput) as refused:
        await ids(world, filter=text)
    assert refused.value.reason == "BAD_FILTER"


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("create_time", "badger ant crow"),
        ("create_time asc", "badger ant crow"),
        ("name", "ant badger crow"),
        ("name desc", "crow badger ant"),
    ],
)
async def test_an_order_holds_over_all_pages(shelf: World, order: str, found: str):
    names, token = [], ""
    while True:
        request = pb.ListAdaptersRequest(parent="tenants/acme", order_by=order, page_size=1, page_token=token)
        page = await list_adapters(shelf.tools.db, request)
        names += [adapter.name.rpartition("/")[2] for adapter in page.adapters]
        if not (token := page.next_page_token):
            break
    assert names == found.split()


async def test_a_token_of_another_query_and_an_unknown_order_are_refused(shelf: World):
    page = await list_adapters(shelf.tools.db, pb.ListAdaptersRequest(parent="tenants/acme", page_size=1))
    for fields in ({"order_by": "name"}, {"filter": "rank = 8"}, {"parent": "tenants/globex"}):
        request = pb.ListAdaptersRequest(**{"parent": "tenants/acme", "page_token": page.next_page_token, **fields})
        with pytest.raises(InvalidInput, match="page_token"):
            await list_adapters(shelf.tools.db, request)
    with pytest.raises(InvalidInput, match="order_by"):
        await ids(shelf, order_by="rank")


async def test_versions_come_newest_first_and_page_by_page(world: World):
    for _ in range(5):
        await make_version(world.tools.db, "fox")
    numbers, token = [], ""
    while True:
        request = pb.ListAdapterVersionsRequest(parent="tenants/acme/adapters/fox", page_size=2, page_token=token)
        page = await list_versions(world.tools.db, request)
        numbers.append([version.number for version in page.adapter_versions])
        if not (token := page.next_page_token):
            break
    assert numbers == [[5, 4], [3, 2], [1]]


async def test_another_tenants_adapter_has_no_versions_to_list(shelf: World):
    with pytest.raises(NotFound):
        await list_versions(shelf.tools.db, pb.ListAdapterVersionsRequest(parent="tenants/globex/adapters/ant"))
