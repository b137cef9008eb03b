"""The squared error, which all the published objectives have."""

from lorafleet.catalog.loss import Loss

FACTS = Loss(name="squared", title="squared error")
