"""Checkpoints of the trainable state only: adapter, AdamW's moments, the step. safetensors and JSON, nothing pickled.

A checkpoint does not know how many workers or which ZeRO stage made it. Its manifest is written last and deleted
first, so what has one is whole.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from safetensors.torch import load, save
from torch import Tensor

from lorafleet.layout import MANIFEST, step_folder
from trainer.storage import Folder

FORMAT = "lorafleet-checkpoint-1"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a resumed run must know beside the tensors. The sampler's position is the step: its order is keyed."""

    step: int  # optimizer steps done
    losses: tuple[tuple[int, float], ...] = ()  # (step, loss) so far, for the model card
    held_out_losses: tuple[tuple[int, float], ...] = ()  # (step, loss); step 0 is the base


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, in memory."""

    progress: Progress
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]


def write(folder: Folder, checkpoint: Checkpoint, *, keep: int) -> None:
    """Saves under `step-…/`, then deletes all but the newest `keep`."""
    files = {
        "adapter.safetensors": save(dict(checkpoint.weights)),
        "optimizer.safetensors": save(dict(checkpoint.moments)),
        "progress.json": json.dumps(asdict(checkpoint.progress)).encode(),
    }
    here = folder.child(step_folder(checkpoint.progress.step))
    here.write_all(files)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    here.put(MANIFEST, json.dumps({"format": FORMAT, "files": digests}).encode())
    for old in _whole(folder)[:-keep]:
        _delete(folder.child(old))


def newest(folder: Folder) -> Checkpoint | None:
    """The newest whole checkpoint whose files are what its manifest says; None when there is none."""
    for name in reversed(_whole(folder)):
        here = folder.child(name)
        manifest = json.loads(here.get(MANIFEST))
        files = here.read_all(manifest["files"])
        if manifest["format"] == FORMAT and all(hashlib.sha256(files[path]).hexdigest() == sha for path, sha in manifest["files"].items()):
            return _parse(files)
    return None


def newest_step(folder: Folder) -> int | None:
    """Step of the newest whole checkpoint; None when there is none."""
    whole = _whole(folder)
    return int(whole[-1].removeprefix("step-")) if whole else None


def _parse(files: Mapping[str, bytes]) -> Checkpoint:
    fields = json.loads(files["progress.json"])
    return Checkpoint(
        progress=Progress(
            step=fields["step"],
            losses=tuple((step, loss) for step, loss in fields["losses"]),
            held_out_losses=tuple((step, loss) for step, loss in fields["held_out_losses"]),
        ),
        weights=load(files["adapter.safetensors"]),
        moments=load(files["optimizer.safetensors"]),
    )


def _whole(folder: Folder) -> list[str]:
    found = (entry.path.split("/") for entry in folder.list())
    return sorted(parts[0] for parts in found if len(parts) == 2 and parts[1] == MANIFEST)


def _delete(folder: Folder) -> None:
    folder.delete([MANIFEST])
    folder.delete([entry.path for entry in folder.list()])
