"""The client's methods for generations: pictures that a server draws with a base and adapters. Knows gRPC and the protos."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from lorafleet import generation_proto
from lorafleet.aio.base import AsyncBase
from lorafleet.aio.connection import AsyncConnection
from lorafleet.states import has_ended
from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.v1.generation_service_pb2_grpc import GenerationServiceStub
from lorafleet.work.generation import ServedGeneration


class AsyncGenerations(AsyncBase):
    """The client's methods for generations."""

    def __init__(self, connection: AsyncConnection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self._generation_rpc = cast(Any, GenerationServiceStub(connection.channel))  # generated, untyped

    def generation_name(self, generation: str) -> str:
        """The name of a generation: tenants/{tenant}/generations/{generation} for an id; a full name is returned unchanged."""
        return generation if "/" in generation else f"{self.parent}/generations/{generation}"

    async def create_generation(
        self, spec: ServedGeneration, *, generation_id: str = "", request_id: str = "", validate_only: bool = False
    ) -> pb.Generation:
        """Ask for pictures; once this returns the request cannot be lost. `lorafleet.work.generation.parse` makes the spec of plain values.

        Names of adapters stand for the versions that they point to now. Raises InvalidSpec, AlreadyExists, NotFound and FailedPrecondition
        for adapters. A `request_id` (a UUID) makes the call safe to repeat across processes; without one it is safe within this call.
        """
        request = pb.CreateGenerationRequest(
            parent=self.parent,
            generation=pb.Generation(spec=generation_proto.to_proto(spec)),
            generation_id=generation_id,
            request_id=request_id or str(uuid.uuid4()),
            validate_only=validate_only,
        )
        return await self.connection.call(self._generation_rpc.CreateGeneration, request)

    async def get_generation(self, generation: str) -> pb.Generation:
        """The generation as it is now. Raises NotFound."""
        request = pb.GetGenerationRequest(name=self.generation_name(generation))
        return await self.connection.call(self._generation_rpc.GetGeneration, request)

    async def list_generations(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> AsyncGenerator[pb.Generation]:
        """All matching generations, fetched page by page; `filter` such as `state = RUNNING AND labels.team = "red"`."""
        request = pb.ListGenerationsRequest(parent=self.parent, filter=filter, order_by=order_by, page_size=page_size)
        async with aclosing(self._pages(self._generation_rpc.ListGenerations, request)) as pages:
            async for page in pages:
                for generation in page.generations:
                    yield generation

    async def cancel_generation(self, generation: str, *, etag: str = "") -> pb.Generation:
        """Ask a generation to stop; the pictures that are there stay. Raises NotFound, FailedPrecondition.

        With `etag`, only if it has not changed since it had that etag. Raises Aborted.
        """
        request = pb.CancelGenerationRequest(name=self.generation_name(generation), etag=etag)
        return await self.connection.call(self._generation_rpc.CancelGeneration, request)

    async def watch_generations(self, generation: str = "", *, timeout_s: float | None = None) -> AsyncGenerator[pb.Generation]:
        """The generation now, then after every change until it has ended; without one, all of the tenant, endlessly.

        Resumes as `watch` does. Raises NotFound, and DeadlineExceeded, a TimeoutError, after `timeout_s`.
        """
        name = self.generation_name(generation) if generation else ""
        request = pb.WatchGenerationsRequest(parent=name.partition("/generations/")[0] or self.parent, name=name)
        async with aclosing(self.connection.watch(self._generation_rpc.WatchGenerations, request, timeout_s)) as events:
            async for event in events:
                if not event.HasField("generation"):
                    continue
                yield event.generation
                if name and has_ended(event.generation):
                    return

    async def sign_generation(self, generation: str, *, expire_s: int = 0) -> pb.SignGenerationResponse:
        """URLs with which anyone can download the pictures, for `expire_s` seconds (default: an hour).

        Raises NotFound; FailedPrecondition if it has not succeeded or the store cannot sign.
        """
        request = pb.SignGenerationRequest(name=self.generation_name(generation), expire_s=expire_s)
        return await self.connection.call(self._generation_rpc.SignGeneration, request)
