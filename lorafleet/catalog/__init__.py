"""What is known of model families, adapter methods, optimizers and losses without torch: read by the spec, the service and the trainer.

One file each: `catalog/families/sd1.py`, `catalog/methods/dora.py`, `catalog/optimizers/adamw.py`. Its name is the name in specs.
"""

from lorafleet.catalog.family import Family
from lorafleet.catalog.loss import Loss
from lorafleet.catalog.method import Method
from lorafleet.catalog.optimizer import Optimizer
from lorafleet.catalog.precision import Precision
from lorafleet.catalog.registry import Registry
from lorafleet.catalog.single_file import SingleFile

FAMILIES: Registry[Family] = Registry("model family", "lorafleet.catalog.families", "FACTS", extension="catalog.families")
METHODS: Registry[Method] = Registry("adapter method", "lorafleet.catalog.methods", "FACTS", extension="catalog.methods")
PRECISIONS: Registry[Precision] = Registry("precision", "lorafleet.catalog.precisions", "FACTS", extension="catalog.precisions")
LOSSES: Registry[Loss] = Registry("loss", "lorafleet.catalog.losses", "FACTS", extension="catalog.losses")
OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", "lorafleet.catalog.optimizers", "FACTS", extension="catalog.optimizers")


def single_files() -> dict[str, SingleFile]:
    """How a base of each family lies in one file, by family; without those that are not read so."""
    return {family.name: family.single_file for family in FAMILIES.all() if family.single_file is not None}
