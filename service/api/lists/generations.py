"""Serves ListGenerations, as jobs are listed."""

from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.work.generation import KIND
from service.api.lists.jobs import list_work
from service.db.database import Database


async def list_generations(db: Database, request: pb.ListGenerationsRequest) -> pb.ListGenerationsResponse:
    """A page of a tenant's generations."""
    shown, token = await list_work(db, request, KIND.name)
    return pb.ListGenerationsResponse(generations=shown, next_page_token=token)
