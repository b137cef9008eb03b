"""Serves gRPC reflection: what users may call, and nothing of what runs and this server say to each other."""

from collections.abc import Iterable

import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from lorafleet.v1 import access_service_pb2, batch_service_pb2, training_service_pb2

_FILES = (training_service_pb2, batch_service_pb2, access_service_pb2, health_pb2, reflection_pb2)


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Lists these services of ours, health and itself. The pool holds their files alone: a name asked for by guess is not found."""
    pool = descriptor_pool.DescriptorPool()
    for module in _FILES:
        _add(pool, module.DESCRIPTOR, set())
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=pool)


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    """The file, behind those that it imports."""
    if file.name in added:
        return
    added.add(file.name)
    for needed in file.dependencies:
        _add(pool, needed, added)
    copy = FileDescriptorProto()
    file.CopyToProto(copy)
    pool.Add(copy)
