"""How much each place of a picture counts in its loss, by its mask. Pure."""

from dataclasses import dataclass

from torch import Tensor

from lorafleet.spec import ObjectiveSpec


@dataclass(frozen=True)
class Masking:
    """What lies outside of a mask counts `floor`; a row's loss is then the mean over all its places, or, normalised, over what counts.

    As OneTrainer has it (`unmasked_weight`, `normalize_masked_area_loss`); kohya's has no floor, and is not normalised either
    (`apply_masked_loss`). Not normalised, a small thing in a large picture teaches less than one that fills it.
    """

    floor: float = 0.0
    is_normalised: bool = False

    @classmethod
    def of(cls, spec: ObjectiveSpec) -> "Masking":
        return cls(spec.mask_floor, spec.mask_normalized)

    def places(self, masks: Tensor) -> Tensor:
        """Of masks from 0 to 1, (rows, 1, height, width): what a loss weighs its mean over places by."""
        return masks.clamp(min=self.floor)

    def rows(self, places: Tensor) -> Tensor | float:
        """What a row's mean over what counts is to be multiplied by, (rows,): its share of the picture, or nothing."""
        return 1.0 if self.is_normalised else places.flatten(1).mean(dim=1)
