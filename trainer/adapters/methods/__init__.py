"""Adapter methods by the name that a spec gives them. Each is imported on demand."""

from lorafleet import catalog
from lorafleet.catalog.registry import Registry
from trainer.adapters.methods.protocol import AdapterMethod

METHODS: Registry[AdapterMethod] = Registry(
    "adapter method", "trainer.adapters.methods", "METHOD", extension="methods", facts=catalog.METHODS
)
