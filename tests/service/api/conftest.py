"""The API over a real socket, before the same fake backend."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from lorafleet.v1 import access_service_pb2_grpc, batch_service_pb2_grpc, report_service_pb2_grpc
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.api.options import new_server
from service.server.serving import add_services
from service.settings.serve_settings import CallLimits
from tests.service.api.served import Api, Caller
from tests.service.streams import end_all
from tests.service.world import World


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    before, caller = asyncio.all_tasks(), Caller()
    server = new_server(CallLimits(max_requests_per_s=0), caller, world.tools.db)
    port = server.add_insecure_port("127.0.0.1:0")
    stopping = asyncio.Event()
    await add_services(server, world.tools, stopping)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        jobs, reports = rpc.TrainingServiceStub(channel), report_service_pb2_grpc.ReportServiceStub(channel)
        batches = batch_service_pb2_grpc.BatchServiceStub(channel)
        yield Api(
            address=f"127.0.0.1:{port}",
            channel=channel,
            jobs=jobs,
            reports=reports,
            batches=batches,
            stopping=stopping,
            world=world,
            caller=caller,
            access=access_service_pb2_grpc.AccessServiceStub(channel),
        )
        stopping.set()  # as `serve` does: it ends the watches
        world.tools.db.bell.ring()
        await server.stop(None)
    await end_all()  # what a test reads without the server goes on until then
    if left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        await asyncio.wait(left, timeout=10)  # calls that were broken off put their connections back before the database closes
