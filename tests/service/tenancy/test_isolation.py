"""A tenant that is set up as isolated trains in no company but its own."""

import pytest

from service.control.packing import Sharing
from service.db.models import TenantRow
from tests.service.access.members import make_tenant
from tests.service.world import World


@pytest.mark.parametrize("is_isolated", [True, False])
async def test_a_waiting_job_is_isolated_from_the_moment_its_tenant_is(world: World, is_isolated: bool):
    await world.submit(scheduling={"sharing": "anyone"})
    [before] = (await world.tools.candidates.of_queue(world.tools.db)).candidates
    assert before.sharing is Sharing.ANYONE
    await make_tenant(world.tools.db, "acme", is_isolated=is_isolated)
    [after] = (await world.tools.candidates.of_queue(world.tools.db)).candidates
    assert after.sharing is (Sharing.TENANT if is_isolated else Sharing.ANYONE)
    async with world.tools.db.transaction() as tx:
        (await tx.session.get_one(TenantRow, "acme")).is_isolated = False
    [again] = (await world.tools.candidates.of_queue(world.tools.db)).candidates
    assert again.sharing is Sharing.ANYONE
