"""The API as tests call it."""

import asyncio
from dataclasses import dataclass

import grpc.aio

from lorafleet import spec_proto
from lorafleet.errors import Unauthenticated
from lorafleet.v1 import access_service_pb2_grpc, batch_service_pb2_grpc, report_service_pb2_grpc
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.access.identity import OPEN, Identity
from tests.service.world import World


@dataclass
class Caller:
    """Who calls: on an open server anybody, until a test says otherwise."""

    identity: Identity | None = OPEN

    async def __call__(self, context: object) -> Identity:
        if self.identity is None:
            raise Unauthenticated("no token")
        return self.identity


@dataclass
class Api:
    address: str
    channel: grpc.aio.Channel
    jobs: rpc.TrainingServiceStub
    reports: report_service_pb2_grpc.ReportServiceStub
    batches: batch_service_pb2_grpc.BatchServiceStub
    access: access_service_pb2_grpc.AccessServiceStub
    stopping: asyncio.Event
    world: World
    caller: Caller

    def request(self, **fields) -> pb.CreateTrainingJobRequest:
        """A good request, with some fields changed."""
        job = pb.TrainingJob(spec=spec_proto.to_proto(self.world.spec()))
        return pb.CreateTrainingJobRequest(**{"parent": "tenants/acme", "training_job": job, **fields})
