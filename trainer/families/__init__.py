"""Model families by the name that a spec gives them. Each is imported on demand: it brings its own part of diffusers."""

from lorafleet import catalog
from lorafleet.catalog.registry import Registry
from trainer.families.protocol import Family

FAMILIES: Registry[Family] = Registry("model family", "trainer.families", "FAMILY", extension="families", facts=catalog.FAMILIES)


def family(name: str) -> Family:
    """Raises LookupError for one that this trainer does not know."""
    return FAMILIES.get(name)
