"""What a worker does instead of training: steps by the clock, losses by a formula, and everything that the store must hold after."""

import hashlib
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable

from lorafleet.contract.layout import MANIFEST, JobLayout, step_folder
from lorafleet.contract.run_manifest import RunManifest, Style
from lorafleet.v1.training_service_pb2 import Artifact
from trainer import eviction
from trainer.report import Address, Reporter
from trainer.storage import Folder

log = logging.getLogger("lorafleet.fast")
WEIGHTS = "pytorch_lora_weights.safetensors"
GATE_S = 0.5  # between two looks


class Worker:
    """One worker. Rank 0 reports and writes; the others hold their places until the driver ends the run, or their pod must go."""

    def __init__(self, rank: int) -> None:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
        self._rank = rank
        self._leave = threading.Event()

    def leave(self) -> None:
        self._leave.set()

    def train(self, manifest: RunManifest, address: Address) -> None:
        if self._rank:
            while not self._must_leave():
                time.sleep(0.5)
            return
        with eviction.at_work(), Reporter(address, source="worker-0") as reporter:
            for style in manifest.pack:
                _train_style(style, reporter, self._must_leave)
            if not reporter.flush():
                raise RuntimeError("the control plane did not hear the end of this run")

    def _must_leave(self) -> bool:
        return self._leave.is_set() or eviction.is_told()


def loss(seed: int, step: int) -> float:
    """Falls, and depends on nothing but seed and step: a resumed run continues another's curve."""
    noise = int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:4], "big") / 2**32
    return 0.1 + math.exp(-step / 50) + 0.01 * noise


def _train_style(style: Style, reporter: Reporter, must_leave: Callable[[], bool]) -> None:
    layout, max_steps = JobLayout(style.output_uri), style.spec.training.max_steps
    if (manifest := Folder(layout.adapter).get_or_none(MANIFEST)) is not None:
        reporter.succeeded(style.job, max_steps, _reported(layout.adapter, manifest))  # an earlier attempt died after its commit
        return
    step = _newest(Folder(layout.checkpoints))
    if step:
        reporter.resumed(style.job, step)
        log.info("[%s] resumed at step %d", style.job, step)

    def is_over() -> bool:
        return reporter.must_stop(style.job) or must_leave()

    while step < max_steps:
        _wait_at_gate(style, step, is_over)
        if is_over():
            _save(Folder(layout.checkpoints), style, step)
            reporter.stopped(style.job, step)
            log.info("[%s] stopped at step %d", style.job, step)
            return
        time.sleep(_label_s(style, "step-ms"))
        step += 1
        reporter.progress(style.job, phase="training", step=step, max_steps=max_steps, loss=loss(style.spec.training.seed, step))
        log.info("[%s] step %d", style.job, step)
        if step % style.spec.checkpointing.every_steps == 0:
            _save(Folder(layout.checkpoints), style, step)
    _save(Folder(layout.checkpoints), style, step)
    time.sleep(_label_s(style, "commit-ms"))
    reporter.succeeded(style.job, step, _commit(style, layout.adapter))
    log.info("[%s] artifact committed", style.job)


def _wait_at_gate(style: Style, step: int, is_over: Callable[[], bool]) -> None:
    """At a step that the label `gates` names the run stays until somebody puts gate-STEP beside its spec, or it must stop."""
    if str(step) not in style.spec.labels.get("gates", "").split(","):
        return
    log.info("[%s] waiting at the gate behind step %d", style.job, step)
    while Folder(style.output_uri).get_or_none(f"gate-{step}") is None and not is_over():
        time.sleep(GATE_S)


def _label_s(style: Style, name: str) -> float:
    return float(style.spec.labels.get(name, "0")) / 1000


def _newest(folder: Folder) -> int:
    steps = [int(path.split("/")[0].removeprefix("step-")) for entry in folder.list() if (path := entry.path).endswith("/" + MANIFEST)]
    return max(steps, default=0)


def _save(folder: Folder, style: Style, step: int) -> None:
    if step == 0:
        return
    data = json.dumps({"step": step, "loss": loss(style.spec.training.seed, step)}).encode()
    here = folder.child(step_folder(step))
    here.put("progress.json", data)
    files = {"progress.json": hashlib.sha256(data).hexdigest()}
    here.put(MANIFEST, json.dumps({"format": "lorafleet-fast-checkpoint-1", "job": style.job, "files": files}).encode())


def _commit(style: Style, uri: str) -> Artifact:
    """Files first, the manifest last and only if nobody's is there."""
    data = json.dumps([loss(style.spec.training.seed, step) for step in range(1, style.spec.training.max_steps + 1)]).encode()
    folder = Folder(uri)
    folder.put(WEIGHTS, data)
    files = {WEIGHTS: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}}
    manifest = json.dumps({"format": "lorafleet-artifact-1", "job": style.job, "files": files}).encode()
    if not folder.put_if_absent(MANIFEST, manifest):
        manifest = folder.get(MANIFEST)
    return _reported(uri, manifest)


def _reported(uri: str, manifest: bytes) -> Artifact:
    size_bytes = sum(file["size_bytes"] for file in json.loads(manifest)["files"].values())
    return Artifact(uri=uri, manifest_sha256=hashlib.sha256(manifest).hexdigest(), size_bytes=size_bytes)
