"""Styles on tiny SDXL bases: the packs of the other tests, and the independent loop over the very same style."""

from pathlib import Path
from typing import Any

from safetensors import safe_open

from lorafleet.contract.layout import JobLayout, adapter_file
from lorafleet.contract.run_manifest import Style
from tests.trainer.packs import Packs
from tests.trainer.sdxl.reference import Reference, Trained
from trainer.group import Group

FIELDS: dict[str, dict[str, Any]] = {
    "dataset": {"validation_fraction": 0.2},
    "adapter": {"rank": 2, "alpha": 3.0, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]},
    "training": {"micro_batch_size": 2, "learning_rate": 1e-3, "max_steps": 20},
    "checkpointing": {"every_steps": 1000},
}


class Sdxl(Packs):
    """Makes packs on the base of one objective; see Packs."""

    def __init__(self, folder: Path, group: Group, bases: dict[str, Path], data_set: Path) -> None:
        super().__init__(folder, group)
        self.bases, self.data_set = bases, data_set

    def style(self, name: str, objective: str = "epsilon", **parts: dict[str, Any]) -> Style:
        return self.style_on(self.bases[objective], name, **parts)

    def style_on(self, base: Path, name: str, **parts: dict[str, Any]) -> Style:
        places = {"base_model": {"uri": f"file://{base}", "family": "sdxl"}, "dataset": {"uri": f"file://{self.data_set}"}}
        keys = {*FIELDS, *places, *parts}
        return super().style(name, **{key: {**FIELDS.get(key, {}), **places.get(key, {}), **parts.get(key, {})} for key in keys})

    def reference(self, style: Style) -> Reference:
        return Reference(Path(style.spec.base_model.uri.removeprefix("file://")), self.ready(style))

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
