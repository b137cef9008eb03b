"""The group of a lone worker, once for the whole process: DeepSpeed keeps the first one it meets."""

import os
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from service.backends.ray_head import free_ports
from trainer.group import Group


@pytest.fixture(scope="session")
def group() -> Iterator[Group]:
    places = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update(places, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_ports(1)[0]))
    dist.init_process_group("gloo", rank=0, world_size=1)
    yield Group.current()
    dist.destroy_process_group()
