"""A toy loss: Huber's own."""

from lorafleet.catalog.loss import Loss

FACTS = Loss(name="toy_huber", title="Huber's loss")
