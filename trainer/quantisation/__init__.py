"""Quantisations of frozen layers by the name of the precision that a spec gives. Each is imported on demand: it brings its library."""

from lorafleet import catalog
from lorafleet.catalog.registry import Registry
from trainer.quantisation.protocol import Quantisation

QUANTISATIONS: Registry[Quantisation] = Registry(
    "quantisation", "trainer.quantisation", "QUANTISATION", extension="quantisation", facts=catalog.PRECISIONS
)
