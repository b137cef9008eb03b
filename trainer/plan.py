"""What the driver hands to its workers: the prepared pack and where to report. Small, and without torch."""

from dataclasses import dataclass

from trainer.prepare import PreparedStyle
from trainer.report import Address


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One run, ready to train."""

    pack: tuple[PreparedStyle, ...]
    cache_uri: str
    report_to: Address
