"""What a server registers is what the tests of all methods go through: none is forgotten."""

import asyncio
from typing import Any

from lorafleet.v1 import training_service_pb2
from service.server.serving import SERVICES, add_services
from tests.service.api.methods import methods, services
from tests.service.world import World

PACKAGE = training_service_pb2.DESCRIPTOR.package


class Registry:
    """A server to register at, that keeps the names of methods and serves none."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same methods once more."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods.update(f"{service}.{name}" for name in handlers)


async def test_every_method_that_is_served_is_known_to_the_tests_and_to_reflection(world: World):
    server: Any = Registry()
    await add_services(server, world.tools, asyncio.Event())
    assert {name for name in server.methods if name.startswith(f"{PACKAGE}.")} == {method.full_name for method in methods()}
    assert set(SERVICES) == {service.full_name for service in services()}
