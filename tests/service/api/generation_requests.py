"""Generations as tests ask for them."""

from typing import Any, cast

from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.v1 import generation_service_pb2_grpc as rpc
from tests.service.api.served import Api


def stub(api: Api) -> Any:
    return cast(Any, rpc.GenerationServiceStub(api.channel))


def generation_spec(api: Api, **changes: Any) -> dict[str, Any]:
    return {"base_model": {"uri": f"file://{api.world.folder}/base"}, "prompts": ["a fox"], **changes}


def generation_request(api: Api, **changes: Any) -> pb.Generation:
    return pb.Generation(spec=pb.GenerationSpec(**generation_spec(api, **changes)))


async def create_generation(
    api: Api, *, parent: str = "tenants/acme", generation_id: str = "", request_id: str = "", validate_only: bool = False, **changes: Any
) -> pb.Generation:
    """`changes`: of a good spec."""
    asked = {"generation_id": generation_id, "request_id": request_id, "validate_only": validate_only}
    return await stub(api).CreateGeneration(
        pb.CreateGenerationRequest(parent=parent, generation=generation_request(api, **changes), **asked)
    )
