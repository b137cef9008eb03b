"""The API over a real socket, before the same fake backend."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from lorafleet.v1 import batch_service_pb2_grpc, report_service_pb2_grpc
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.api.authentication import AuthenticationInterceptor, anybody
from service.api.errors import ErrorInterceptor
from service.api.observing import ObservingInterceptor
from service.server import add_services
from tests.service.api.served import Api
from tests.service.world import World


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    server = grpc.aio.server(interceptors=[ObservingInterceptor(), ErrorInterceptor(), AuthenticationInterceptor(anybody)])
    port = server.add_insecure_port("127.0.0.1:0")
    stopping = asyncio.Event()
    await add_services(server, world.tools, stopping)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        jobs, reports = rpc.TrainingServiceStub(channel), report_service_pb2_grpc.ReportServiceStub(channel)
        batches = batch_service_pb2_grpc.BatchServiceStub(channel)
        yield Api(channel=channel, jobs=jobs, reports=reports, batches=batches, stopping=stopping, world=world)
        await server.stop(None)
