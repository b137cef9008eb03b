"""bfloat16: single precision's range in half of its bytes; passes are computed under autocast."""

from lorafleet.catalog.precision import Precision

FACTS = Precision(name="bf16", title="bfloat16", computes="bf16")
