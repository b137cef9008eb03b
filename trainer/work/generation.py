"""Generations: draws the pictures of a request into its folder in the store. The base stays loaded for the next request on it, and adapters
that were used last."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lorafleet import work
from lorafleet.contract.run_manifest import Task
from lorafleet.errors import InvalidInput, RunFailed
from lorafleet.spec import ClusterSpec
from lorafleet.v1.training_service_pb2 import Artifact
from lorafleet.work.generation import KIND, ServedGeneration
from lorafleet.work.generation import parse as parsed
from trainer import artifact, eviction
from trainer.adapters.start import sources
from trainer.generation import request as requests
from trainer.generation.drawing import ANSWER, Drawing
from trainer.generation.grid import cells
from trainer.generation.kept import KeptAdapters
from trainer.generation.request import Request
from trainer.generation.sampler import Sampler
from trainer.prepare.base_model import BaseModel
from trainer.report import Reporter
from trainer.storage import Folder

SHEETS = "sheet"


class Worker:
    """A sampler, warm."""

    def __init__(self) -> None:
        self._sampler: Sampler | None = None
        self._kept = KeptAdapters()

    def do(self, task: Task, cluster: ClusterSpec, reporter: Reporter) -> Artifact | None:
        folder = Folder(work.artifact_folder(KIND.name, task.output_uri), within=task.output_uri)
        if (found := artifact.existing_in(folder, task.name)) is not None:
            return found
        try:
            drawing = self._drawing(task, cluster, folder, reporter)
        except InvalidInput as why:
            raise RunFailed(str(why), reason="INVALID_SPEC") from None
        for number, name in enumerate(_drawn(drawing), start=1):
            reporter.progress(task.name, phase=KIND.phase, step=number, file=name)
            if reporter.must_stop(task.name) or eviction.is_told():
                return None
        return artifact.commit_files(folder, task.name, _facts(drawing), dict(_files(drawing, folder)))

    def _drawing(self, task: Task, cluster: ClusterSpec, folder: Folder, reporter: Reporter) -> Drawing:
        """What is wrong with a request shows here. Raises InvalidInput, RunFailed."""
        asked = parsed(task.spec)
        spec = asked.drawn()
        for each in asked.resolved.values():  # a version never changes: one that has is none
            sources(each.folder, each.manifest_sha256)
        reporter.progress(task.name, phase="loading", max_steps=asked.size)
        base = requests.inspect(spec)
        sampler = self._sampler_of(base, asked.precision, "cuda" if cluster.gpus_per_worker else "cpu")
        request = requests.checked(spec, base, sampler, folder.uri, on_any_base=asked.force, kept=self._kept)
        return Drawing(_with_labels(request, asked), sampler, folder, kept=self._kept)

    def _sampler_of(self, base: BaseModel, precision: str, device: str) -> Sampler:
        """Adapters are prepared for the layers of a base: they go with it."""
        kept = self._sampler
        if kept is None or not kept.base.serves(base, precision, kept.base.device) or kept.base.device.type != device:
            self._sampler, self._kept = None, KeptAdapters()  # before another one takes memory
            self._sampler = kept = requests.sampler(base, precision=precision, device=device)
        return kept


def _with_labels(request: Request, asked: ServedGeneration) -> Request:
    """Versions of the registry lie in folders of one name: pictures call them by their own."""
    labels = asked.labels_of_files()
    adapters = {uri: replace(each, name=labels.get(uri, each.name)) for uri, each in request.adapters.items()}
    return replace(request, adapters=adapters, cells=tuple(cells(request.spec, adapters)))


def _drawn(drawing: Drawing) -> Iterator[str]:
    for cell, _ in drawing.draw():
        yield cell.file_name(drawing.request.drawn)


def _facts(drawing: Drawing) -> Mapping[str, object]:
    request = drawing.request
    return {"base_digest": request.base.digest, "family": request.base.family, "num_pictures": len(request.cells)}


def _files(drawing: Drawing, folder: Folder) -> Iterator[tuple[str, tuple[str, int]]]:
    """Of all that the request has made: its SHA-256 and size. What else lies there is not its own."""
    known = {each["file"]: each["sha256"] for each in drawing.answer["pictures"]}
    for entry in folder.list():
        if entry.path in known:
            yield entry.path, (known[entry.path], entry.size_bytes)
        elif entry.path == ANSWER or entry.path.startswith(SHEETS):
            yield entry.path, (folder.sha256(entry.path), entry.size_bytes)
