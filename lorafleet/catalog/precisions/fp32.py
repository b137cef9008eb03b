"""Single precision."""

from lorafleet.catalog.precision import Precision

FACTS = Precision(name="fp32", title="single precision", computes="fp32")
