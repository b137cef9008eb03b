"""Whether a style's rows have the same bits alone and in company, for each family: on a tiny base, with adapters of several styles.

Passes are planned and padded as a pack's are, for as many threads as there are; and, for comparison, not padded. What is compared are a
style's predictions and the gradient of its adapter.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.families import SIDE, pictures, write_base
from bench.peer_losses import NUM_TIMES
from lorafleet import objectives
from lorafleet.catalog import FAMILIES
from trainer.pack.passes import PaddingRules, Work, padding_rules, passes

ROWS_EACH = (1, 4, 16)  # of a style in a pass
MINE, STYLES = 1, 3
RANK = 4


def metrics() -> dict[str, float]:
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as folder:
        data = pictures(Path(folder) / "data", range(max(ROWS_EACH)))
        for family in FAMILIES.all():
            rows = Rows.of(family.name, data, Path(folder) / family.name)
            padded, plain = ({number: rows.apart(number, rules) for number in ROWS_EACH} for rules in (_padded(), PaddingRules()))
            print(f"{family.name}: differences by rows of a style {padded}, not padded {plain}", flush=True)
            found[f"row_equal_bits_{family.name}"] = float(not any(padded.values()))
            found[f"row_difference_max_{family.name}"] = max(padded.values())
            found[f"row_difference_max_not_padded_{family.name}"] = max(plain.values())
    return found


@dataclass
class Rows:
    """Rows of several styles, and a model with the adapters of all of them."""

    model: Any
    bank: Any
    inputs: Mapping[str, Tensor]  # each (styles * rows, ...): `noisy`, `times`, and the conditioning

    @classmethod
    def of(cls, family: str, data: Path, folder: Path) -> "Rows":
        from tests.trainer.packs import Packs
        from trainer.adapters.layout import Kind
        from trainer.adapters.model import PackModel
        from trainer.frozen_base import FrozenBase

        targets = FAMILIES.get(family).denoiser.target_modules
        packs = Packs(folder, None)  # pyright: ignore[reportArgumentType]
        base = {"uri": f"file://{write_base(family, folder / 'base')}", "family": family}
        adapter = {"rank": RANK, "target_modules": list(targets)}
        style = packs.style("style", base_model=base, dataset={"uri": f"file://{data}", "resolution": SIDE}, adapter=adapter)
        frozen = FrozenBase(packs.ready(style).base, "fp32", torch.device("cpu"))
        parts, draw = frozen.for_encoding(), torch.Generator().manual_seed(0)
        inputs = _inputs(frozen.family, parts, data, draw)
        model = PackModel(frozen.family, parts, trains_text=False)
        bank = model.add_bank(Kind("lora", RANK, targets, False, 0.0, "adamw"), STYLES, batch_invariant=True)
        for _ in range(STYLES):
            bank.add_style(0.05 * torch.randn(bank.layout.size, generator=draw), 1.0)
        return cls(model, bank, inputs)

    def apart(self, rows_each: int, rules: PaddingRules) -> float:
        """The most that predictions and gradient of a style are apart between both passes, over the largest of them."""
        alone, among = self._computed([MINE], rows_each, rules), self._computed(range(STYLES), rows_each, rules)
        return max(float((one - other).abs().max() / other.abs().max()) for one, other in zip(alone, among, strict=True))

    def _computed(self, styles: Sequence[int], rows_each: int, rules: PaddingRules) -> tuple[Tensor, Tensor]:
        """Predictions for the style's rows, and the gradient of its adapter, in a pass of those styles."""
        from trainer.adapters.bank import ActiveSlots
        from trainer.objectives.draws import Draw

        examples = [Draw(0, sample, 0) for sample in range(rows_each)]
        shape = tuple(self.inputs["noisy"].shape[1:])
        work = [Work(style, 0, style, shape, [examples]) for style in styles]
        (planned,) = passes(work, rules)
        (group,) = planned.slot_groups
        of_styles = [block.style for block in group.blocks for _ in examples]
        rows = [style * max(ROWS_EACH) + each for style, each in zip(of_styles, list(range(rows_each)) * len(styles), strict=True)]
        num_padding = group.num_rows + planned.num_padding - len(rows)
        given = {name: tensor[rows + rows[:1] * num_padding] for name, tensor in self.inputs.items()}
        self.bank.zero_grad()
        active = ActiveSlots(self.bank, group.slots, 0, rows_each, is_paired=group.idle_slot is not None)
        predicted = self.model([active], given.pop("noisy"), given.pop("times"), given, ())
        predicted[: len(rows)].pow(2).flatten(1).mean(1).sum().backward()
        mine = [place for place, style in enumerate(of_styles) if style == MINE]
        return predicted.detach()[mine], self.bank.flat.grad[MINE].clone()


def _padded() -> PaddingRules:
    return padding_rules("cpu", torch.get_num_threads())


def _inputs(family: Any, parts: Any, data: Path, draw: torch.Generator) -> dict[str, Tensor]:
    """Other noise, times and captions for each row."""
    from PIL import Image

    from trainer.data.buckets import PictureSize

    number = STYLES * max(ROWS_EACH)
    with Image.open(data / "000.png") as picture, torch.no_grad():
        shape = family.encode_pictures(parts, [picture.convert("RGB")]).mode.shape[1:]
        text = family.encode_text(parts, list(_captions(number)))
    sizes = [PictureSize(SIDE + each, SIDE, each, 0, SIDE, SIDE) for each in range(number)]
    noisy, shares = torch.randn(number, *shape, generator=draw), torch.rand(number, generator=draw)
    times = NUM_TIMES * shares if family.facts.objective == objectives.FLOW else (NUM_TIMES * shares).long()
    return {"noisy": noisy, "times": times, **family.condition({name: each.detach() for name, each in text.items()}, sizes)}


def _captions(number: int) -> Iterator[str]:
    words = ("red", "green", "blue")
    return (words[each % len(words)] + " thing" * (each % 7) for each in range(number))
