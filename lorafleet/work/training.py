"""Training: one spec, one style, one adapter."""

from lorafleet import spec, work
from lorafleet.work import JOBS, Kind

KIND = Kind(name=work.TRAINING, collection=JOBS, one="job", phase="training", folder="adapter", parse=spec.parse, makes_adapter=True)
