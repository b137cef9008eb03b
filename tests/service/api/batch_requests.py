"""Batches as tests send them."""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import json_format

from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import spec_pb2
from tests.service.api.served import Api
from tests.service.world import World


def spec(**sections: Any) -> spec_pb2.TrainingSpec:
    return json_format.ParseDict(sections, spec_pb2.TrainingSpec())


def item(job_id: str = "", **sections: Any) -> pb.BatchItem:
    return pb.BatchItem(job_id=job_id, spec=spec(**sections))


def good(world: World) -> dict[str, Any]:
    """Defaults with which an empty item is a good one."""
    return {"base_model": {"uri": f"file://{world.folder}/base"}, "dataset": {"uri": f"file://{world.folder}/pictures"}}


def header(world: World, **fields: Any) -> pb.BatchHeader:
    return pb.BatchHeader(**{"parent": "tenants/acme", "batch_id": "night", "defaults": spec(**good(world)), **fields})


def parts(head: pb.BatchHeader, items: Iterable[pb.BatchItem], per_message: int = 500) -> Iterator[pb.CreateBatchRequest]:
    """The stream of a CreateBatch."""
    yield pb.CreateBatchRequest(header=head)
    rest = list(items)
    while rest:
        yield pb.CreateBatchRequest(items=pb.BatchItems(items=rest[:per_message]))
        rest = rest[per_message:]


def plan_parts(head: pb.BatchHeader, items: Iterable[pb.BatchItem]) -> Iterator[pb.PlanBatchRequest]:
    """The stream of a PlanBatch."""
    yield pb.PlanBatchRequest(header=head)
    yield pb.PlanBatchRequest(items=pb.BatchItems(items=list(items)))


async def create(api: Api, items: Iterable[pb.BatchItem], **fields: Any) -> pb.Batch:
    return await api.batches.CreateBatch(parts(header(api.world, **fields), items))
