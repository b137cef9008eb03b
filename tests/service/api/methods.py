"""All methods of the API, as the generated code describes them. test_methods.py compares with what a server registers."""

import pkgutil
from importlib import import_module

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

import lorafleet.v1


def services() -> list[ServiceDescriptor]:
    """Every service of lorafleet/v1."""
    names = sorted(module.name for module in pkgutil.iter_modules(lorafleet.v1.__path__) if module.name.endswith("_service_pb2"))
    modules = [import_module(f"lorafleet.v1.{name}") for name in names]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def methods() -> list[MethodDescriptor]:
    """Every method of theirs."""
    return [method for service in services() for method in service.methods]
