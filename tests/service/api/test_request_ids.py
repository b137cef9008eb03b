"""Request ids are kept for a day, then forgotten and free (AIP-155)."""

from uuid import uuid4

from service.reconcile.loops import compact_once
from tests.service.api.batch_requests import create, item
from tests.service.api.served import Api

DAY_S = 24 * 3600.0


async def test_a_request_is_answered_with_its_job_for_a_day_and_then_makes_another(api: Api):
    request = api.request(request_id=str(uuid4()))
    first = await api.jobs.CreateTrainingJob(request)
    api.world.clock.advance(DAY_S)
    await compact_once(api.world.tools)
    assert (await api.jobs.CreateTrainingJob(request)).uid == first.uid
    api.world.clock.advance(1)
    await compact_once(api.world.tools)
    second = await api.jobs.CreateTrainingJob(request)
    assert second.uid != first.uid
    assert (await api.jobs.CreateTrainingJob(request)).uid == second.uid


async def test_a_batchs_request_id_is_free_for_another_body_after_a_day(api: Api):
    request_id = str(uuid4())
    first = await create(api, [item()], batch_id="one", request_id=request_id)
    api.world.clock.advance(DAY_S)
    await compact_once(api.world.tools)
    assert (await create(api, [item()], batch_id="one", request_id=request_id)).uid == first.uid
    api.world.clock.advance(1)
    await compact_once(api.world.tools)
    second = await create(api, [item(), item()], batch_id="two", request_id=request_id)
    assert second.uid != first.uid
