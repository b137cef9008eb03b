"""Packs in this process, for tests: real model, real DeepSpeed, no Ray; what is reported is kept in a list."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from examples.demo import BASE_MODEL, PICTURES
from lorafleet import spec
from lorafleet.contract.layout import JobLayout
from lorafleet.contract.run_manifest import Style
from lorafleet.errors import RunFailed
from lorafleet.v1.training_service_pb2 import Artifact
from trainer import checkpoint
from trainer.engine import select_accelerator
from trainer.frozen_base import FrozenBase
from trainer.group import Group
from trainer.pack.run import PackRun
from trainer.prepare.style import PreparedStyle, prepare
from trainer.storage import Folder

FIELDS: dict[str, dict[str, Any]] = {
    "base_model": {"uri": f"file://{BASE_MODEL}"},
    "dataset": {"uri": f"file://{PICTURES}", "validation_fraction": 0.02},
    "adapter": {"rank": 2, "target_modules": ["to_q", "to_v"]},
    "training": {"max_steps": 6, "micro_batch_size": 2, "learning_rate": 1e-3},
    "checkpointing": {"every_steps": 3},
}


class Recorder:
    """Stands in for trainer.report.Reporter: remembers what a run says, and says what it is told to."""

    def __init__(self) -> None:
        self.endings: dict[str, str | RunFailed] = {}
        self.steps: dict[str, int] = {}
        self.resumed_from: dict[str, int] = {}
        self.failed_after: dict[str, int] = {}  # steps
        self.stop_at: dict[str, int] = {}  # job -> step at which it is told to stop
        self.joins_at: dict[int, Style] = {}  # step of anybody at which a style joins
        self.on_step: Callable[[str, int], None] = lambda _job, _step: None

    def progress(self, job: str, **changes: Any) -> None:
        if "step" in changes:
            self.steps[job] = changes["step"]
            self.on_step(job, changes["step"])

    def resumed(self, job: str, step: int) -> None:
        self.resumed_from[job] = step

    def succeeded(self, job: str, step: int, artifact: Artifact) -> None:
        self._ended(job, "succeeded")

    def stopped(self, job: str, step: int) -> None:
        self._ended(job, "stopped")

    def failed(self, job: str, error: RunFailed, step: int = 0) -> None:
        self.failed_after[job] = step
        self._ended(job, error)

    def must_stop(self, job: str) -> bool:
        return job in self.stop_at and self.steps.get(job, 0) >= self.stop_at[job]

    def joining(self) -> list[Style]:
        reached = max(self.steps.values(), default=0)
        due = [step for step in self.joins_at if step <= reached]
        return [self.joins_at.pop(step) for step in due]

    def _ended(self, job: str, how: str | RunFailed) -> None:
        assert job not in self.endings, f"{job} ended twice"
        self.endings[job] = how


class Packs:
    """Makes packs of styles in a folder; a second pack with the same names resumes the first."""

    def __init__(self, folder: Path, group: Group) -> None:
        self.folder, self.group = folder, group
        self.cache = Folder(f"file://{folder}/cache")

    def style(self, name: str, **parts: dict[str, Any]) -> Style:
        merged = {key: {**FIELDS.get(key, {}), **parts.get(key, {})} for key in {*FIELDS, *parts}}
        return Style(job=job_of(name), spec=spec.parse(merged), output_uri=f"file://{self.folder}/{name}")

    def ready(self, style: Style) -> PreparedStyle:
        return prepare(style, self.cache)

    def pack(self, *styles: Style, **options: Any) -> PackRun:
        return self.run([self.ready(style) for style in styles], **options)

    def run(
        self,
        ready: Sequence[PreparedStyle],
        *,
        batch_invariant: bool | None = None,
        recorder: Recorder | None = None,
        base: FrozenBase | None = None,
    ) -> PackRun:
        device = select_accelerator(spec.ClusterSpec())
        base = base or FrozenBase(ready[0].base, ready[0].spec.training.precision, device)
        company = len(ready) > 1 if batch_invariant is None else batch_invariant
        return PackRun(ready, base, self.cache, self.group, recorder or Recorder(), batch_invariant=company)  # pyright: ignore[reportArgumentType]

    def train(self, *styles: Style, **options: Any) -> Recorder:
        recorder = options.setdefault("recorder", Recorder())
        self.pack(*styles, **options).train()
        return recorder

    def alone(self, name: str, **parts: dict[str, Any]) -> Recorder:
        return self.train(self.style(name, **parts))

    def saved(self, name: str) -> checkpoint.Checkpoint:
        found = checkpoint.newest(Folder(JobLayout(f"file://{self.folder}/{name}").checkpoints), job=job_of(name))
        assert found is not None
        return found

    def losses(self, name: str) -> list[float]:
        return [loss for _, loss in self.saved(name).progress.losses]

    def pictures(self, name: str, step: int) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.folder / name / "samples" / f"step-{step:08d}").iterdir())]

    def adapter(self, name: str) -> Mapping[str, torch.Tensor]:
        return self.saved(name).weights


def job_of(name: str) -> str:
    return f"tenants/t/jobs/{name}"
