"""Half precision with five bits of exponent: small gradients need a loss scale, and what is large overflows (Micikevicius et al. 2018)."""

from lorafleet.catalog.precision import Precision

FACTS = Precision(name="fp16", title="half precision (Micikevicius et al. 2018)", computes="fp16")
