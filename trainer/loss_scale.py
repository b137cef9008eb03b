"""The loss scale of one style that computes in fp16: torch.amp.GradScaler's arithmetic, with a scale for each style of a pack.

A power of two, by which the style's loss is multiplied and its gradient divided: no bit of what does not overflow or vanish depends on
it, nor on the neighbours of the style.
"""

from dataclasses import dataclass, replace

INITIAL = 2.0**16
GROWTH_INTERVAL = 2000  # steps
MOST_SKIPPED = 20  # steps in a row; the scale is below 1 by then, so that it is not what overflows


@dataclass(frozen=True, kw_only=True)
class LossScale:
    """As it is before a step."""

    scale: float = INITIAL
    good_steps: int = 0  # since it changed
    skipped: int = 0  # steps, of all
    skipped_in_row: int = 0

    @property
    def is_hopeless(self) -> bool:
        return self.skipped_in_row >= MOST_SKIPPED

    def stepped(self) -> "LossScale":
        """After a step whose gradient was finite."""
        if self.good_steps + 1 == GROWTH_INTERVAL:
            return replace(self, scale=2 * self.scale, good_steps=0, skipped_in_row=0)
        return replace(self, good_steps=self.good_steps + 1, skipped_in_row=0)

    def overflowed(self) -> "LossScale":
        """After a step that was skipped."""
        return LossScale(scale=self.scale / 2, skipped=self.skipped + 1, skipped_in_row=self.skipped_in_row + 1)
