"""An alias points to one version: of two who move it at once one hears what the other did, and the audit log says who moved it."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from lorafleet.errors import Aborted, FailedPrecondition, InvalidInput, NotFound
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.identity import Identity
from service.core.resource_names import parse_alias, parse_version
from service.db.registry_models import AdapterVersionRow
from service.registry.aliases import AliasMove, delete_alias, set_alias
from service.registry.looking import get_version
from tests.service.registry.made import adapter, make_version
from tests.service.world import World

ANN = Identity(principal="ann")


@pytest.fixture
async def fox(world: World) -> World:
    """An adapter of three versions."""
    for _ in range(3):
        await make_version(world.tools.db, "fox")
    return world


async def moved(world: World, number: int, alias: str = "production", **more: Any) -> pb.AdapterAlias:
    return await set_alias(world.tools.db, AliasMove(name=parse_alias(f"tenants/acme/adapters/fox@{alias}"), number=number, **more), ANN)


async def points_to(world: World, alias: str = "production") -> int:
    return (await get_version(world.tools.db, parse_version(f"tenants/acme/adapters/fox@{alias}"))).number


async def test_an_alias_names_its_version_everywhere(fox: World):
    first = await moved(fox, 1)
    second = await moved(fox, 3)
    assert (first.previous_version, second.previous_version, second.updated_by) == (0, 1, "ann")
    await moved(fox, 2, "candidate")
    assert await points_to(fox) == 3
    assert dict((await adapter(fox, "fox")).aliases) == {"production": 3, "candidate": 2}
    assert list((await get_version(fox.tools.db, parse_version("tenants/acme/adapters/fox/versions/2"))).aliases) == ["candidate"]


async def test_who_expects_another_version_is_told_which_it_is_now_and_moves_nothing(fox: World):
    await moved(fox, 2)
    for expected in (0, 1):
        with pytest.raises(Aborted, match="points to versions/2 now") as refused:
            await moved(fox, 3, expected=expected)
        assert refused.value.reason == "ALIAS_MOVED"
    with pytest.raises(Aborted, match="does not exist now"):
        await moved(fox, 1, "candidate", expected=2)
    assert await points_to(fox) == 2
    await moved(fox, 3, expected=2)
    assert await points_to(fox) == 3


async def test_an_old_etag_moves_nothing(fox: World):
    first = await moved(fox, 1)
    fox.clock.advance(1)
    await moved(fox, 2, etag=first.etag)
    with pytest.raises(Aborted):
        await moved(fox, 3, etag=first.etag)
    with pytest.raises(Aborted):
        await delete_alias(fox.tools.db, parse_alias("tenants/acme/adapters/fox@production"), first.etag, ANN)
    with pytest.raises(Aborted):
        await moved(fox, 3, "candidate", etag=first.etag)
    assert await points_to(fox) == 2


async def test_of_two_at_once_one_moves_it(fox: World):
    await moved(fox, 1)
    answers = await asyncio.gather(*(moved(fox, number, expected=1) for number in (2, 3)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Aborted", "AdapterAlias"]


async def test_a_repeated_move_is_answered_and_changes_nothing(fox: World):
    first = await moved(fox, 2, expected=0)
    before = (await adapter(fox, "fox")).etag
    assert await moved(fox, 2, expected=0) == first
    assert (await adapter(fox, "fox")).etag == before


async def test_an_alias_that_is_taken_away_names_nothing(fox: World):
    await moved(fox, 2)
    for _ in range(2):
        await delete_alias(fox.tools.db, parse_alias("tenants/acme/adapters/fox@production"), "", ANN)
    with pytest.raises(NotFound, match="has no alias production; it has none"):
        await points_to(fox)


async def test_a_version_that_is_not_there_or_is_damaged_gets_no_alias(fox: World):
    with pytest.raises(NotFound):
        await moved(fox, 4)
    async with fox.tools.db.transaction() as tx:
        await tx.session.execute(update(AdapterVersionRow).values(state="DAMAGED", message="gone"))
    with pytest.raises(FailedPrecondition) as refused:
        await moved(fox, 1)
    assert refused.value.reason == "ADAPTER_VERSION_DAMAGED"


@pytest.mark.parametrize("name", ["fox@", "fox@Production", "fox@a/b", "fox", "fox/versions/1", "fox@@a", "fox@" + "a" * 41])
def test_what_is_no_alias_is_refused(name: str):
    with pytest.raises(InvalidInput):
        parse_alias(f"tenants/acme/adapters/{name}")


async def test_another_tenants_adapter_is_not_there(fox: World):
    with pytest.raises(NotFound):
        await set_alias(fox.tools.db, AliasMove(name=parse_alias("tenants/globex/adapters/fox@production"), number=1), ANN)
    assert not (await adapter(fox, "fox")).aliases
