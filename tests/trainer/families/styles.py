"""Styles on tiny bases of every family: packs of them, and the independent loop over the very same style."""

from pathlib import Path
from typing import Any

from safetensors import safe_open

from lorafleet.contract.layout import JobLayout, adapter_file
from lorafleet.contract.run_manifest import Style
from tests.trainer.families.reference import FlowReference
from tests.trainer.families.rows import ROWS
from tests.trainer.packs import Packs
from tests.trainer.sdxl.reference import Trained
from trainer.group import Group

RESOLUTION = 64
FIELDS: dict[str, dict[str, Any]] = {
    "dataset": {"validation_fraction": 0.2, "resolution": RESOLUTION},
    "adapter": {"rank": 2, "alpha": 3.0},
    # Adam divides a gradient by its own size: of one that is nearly nothing it would show the last bit.
    "training": {"micro_batch_size": 2, "learning_rate": 1e-3, "max_steps": 10, "adam_epsilon": 1e-5},
    "checkpointing": {"every_steps": 1000},
}


class Families(Packs):
    """Makes packs on the bases of one family."""

    def __init__(self, folder: Path, group: Group, family: str, bases: dict[str, Path], data_set: Path) -> None:
        super().__init__(folder, group)
        self.row, self.bases, self.data_set = ROWS[family], bases, data_set

    def style(self, name: str, variant: str | None = None, **parts: dict[str, Any]) -> Style:
        return self.style_on(self.bases[variant or self.row.variants[0]], name, **parts)

    def style_on(self, base: Path, name: str, **parts: dict[str, Any]) -> Style:
        places = {"base_model": {"uri": f"file://{base}", "family": self.row.family}, "dataset": {"uri": f"file://{self.data_set}"}}
        keys = {*FIELDS, *places, *parts}
        given = {key: {**FIELDS.get(key, {}), **places.get(key, {}), **parts.get(key, {})} for key in keys}
        return super().style(name, **{**given, "adapter": {"target_modules": list(self.row.target_modules), **given["adapter"]}})

    def reference(self, style: Style) -> FlowReference:
        return self.row.reference(Path(style.spec.base_model.uri.removeprefix("file://")), self.ready(style))

    def independently(self, style: Style) -> Trained:
        return self.reference(style).train()

    def exported(self, style: Style, file_format: str) -> Path:
        """The committed file of that format."""
        folder = Path(JobLayout(style.output_uri).adapter.removeprefix("file://"))
        return folder / adapter_file(file_format, style.spec.output.name)  # pyright: ignore[reportArgumentType]

    def held_out(self, style: Style) -> list[float]:
        """The held-out loss of the base, and of what was made, as the committed file tells them."""
        with safe_open(self.exported(style, "kohya"), "pt") as file:
            told = file.metadata()
        return [float(told["lorafleet.held_out_loss_base"]), float(told["lorafleet.held_out_loss"])]
