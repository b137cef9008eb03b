"""Checkpoints of the trainable state only: adapter, AdamW's moments, the step. safetensors and JSON, nothing pickled.

A checkpoint does not know how many workers or which ZeRO stage made it. Its manifest is written last and deleted
first, so what has one is whole. It names its job: another job that is given the same folder must not go on from it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from safetensors.torch import load, save
from torch import Tensor

from lorafleet.errors import RunFailed
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


def write(folder: Folder, checkpoint: Checkpoint, *, job: str, keep: int) -> None:
    """Saves under `step-…/`, then deletes all but the newest `keep`."""
    files = {
        "adapter.safetensors": save(dict(checkpoint.weights)),
        "optimizer.safetensors": save(dict(checkpoint.moments)),
        "progress.json": json.dumps(asdict(checkpoint.progress)).encode(),
    }
    here = folder.child(step_folder(checkpoint.progress.step))
    here.delete([MANIFEST])  # a resumed run may save the same step again
    here.write_all(files)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    here.put(MANIFEST, json.dumps({"format": FORMAT, "job": job, "files": digests}).encode())
    for old in _whole(folder)[:-keep]:
        _delete(folder.child(old))


def newest(folder: Folder, *, job: str) -> Checkpoint | None:
    """The newest whole checkpoint whose files are what its manifest says; None when there is none.

    Raises RunFailed OUTPUT_TAKEN when it is another job's.
    """
    for name in reversed(_whole(folder)):
        if (found := _read(folder.child(name), job)) is not None:
            return found
    return None


def read(folder: Folder, step: int, *, job: str) -> Checkpoint:
    """The checkpoint of that step. Raises RunFailed when it is no longer whole."""
    found = _read(folder.child(step_folder(step)), job)
    if found is None:
        raise RunFailed(
            f"{folder.uri}: the checkpoint of step {step} changed while it was read", reason="CHECKPOINT_CHANGED", retryable=True
        )
    return found


def _read(here: Folder, job: str) -> Checkpoint | None:
    data = here.get_or_none(MANIFEST)
    if data is None:
        return None
    manifest = json.loads(data)
    if manifest["format"] != FORMAT:
        return None
    if manifest.get("job", job) != job:
        raise RunFailed(
            f"output.uri: {here.uri} is a checkpoint of {manifest['job']}; choose another output.uri, or delete it", reason="OUTPUT_TAKEN"
        )
    files = here.read_all(manifest["files"])
    sound = all(hashlib.sha256(files[path]).hexdigest() == sha for path, sha in manifest["files"].items())
    return _parse(files) if sound else None


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
