"""Checkpoints of the trainable state only: adapter, AdamW's moments, the step. safetensors and JSON, nothing pickled.

A checkpoint does not know how many workers or which ZeRO stage made it. Its manifest is written last and deleted
first, so what has one is whole. It names its job: another job that is given the same folder must not go on from it. Whoever may
write to the folder may have written it, so it is read as a stranger's: `untrusted`, and no message quotes it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeGuard

from pydantic import JsonValue
from safetensors.torch import load, save
from torch import Tensor

from lorafleet.contract.layout import MANIFEST, step_folder
from lorafleet.errors import RunFailed
from trainer import untrusted
from trainer.loss_scale import LossScale
from trainer.storage import Folder
from trainer.untrusted import Refused

MOST_SCALE = 2.0**100
FORMAT = "lorafleet-checkpoint-1"
_WEIGHTS, _MOMENTS, _PROGRESS = "adapter.safetensors", "optimizer.safetensors", "progress.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a resumed run must know beside the tensors. The sampler's position is the step: its order is keyed."""

    step: int  # optimizer steps done
    losses: tuple[tuple[int, float], ...] = ()  # (step, loss) so far, for the model card
    held_out_losses: tuple[tuple[int, float], ...] = ()  # (step, loss); step 0 is the base
    loss_scale: LossScale | None = None  # of a style that computes in fp16


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, in memory."""

    progress: Progress
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]


def write(folder: Folder, checkpoint: Checkpoint, *, job: str, keep: int) -> None:
    """Saves under `step-…/`, then deletes all but the newest `keep`."""
    files = {
        _WEIGHTS: save(dict(checkpoint.weights)),
        _MOMENTS: save(dict(checkpoint.moments)),
        _PROGRESS: json.dumps(asdict(checkpoint.progress)).encode(),
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
    data = here.get_or_none(MANIFEST, most_bytes=untrusted.MAX_CONFIG_BYTES)
    if data is None:
        return None
    with untrusted.taken(f"{here.uri}/{MANIFEST}"):
        manifest = untrusted.json_object(data)
        if manifest.get("format") != FORMAT:
            return None
        if manifest.get("job", job) != job:
            raise Refused("is of another job's checkpoint")
        digests = _digests(manifest)
    files = here.read_all(digests)
    if not all(hashlib.sha256(files[path]).hexdigest() == sha for path, sha in digests.items()):
        return None
    with untrusted.taken(f"{here.uri}/{_PROGRESS}"):
        return _parse(files)


def _digests(manifest: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """SHA-256 by file, as the manifest says."""
    files = manifest.get("files")
    if not isinstance(files, dict) or files.keys() != {_WEIGHTS, _MOMENTS, _PROGRESS}:
        raise Refused("names other files than a checkpoint has")
    return files


def newest_step(folder: Folder) -> int | None:
    """Step of the newest whole checkpoint; None when there is none."""
    whole = _whole(folder)
    return int(whole[-1].removeprefix("step-")) if whole else None


def _parse(files: Mapping[str, bytes]) -> Checkpoint:
    return Checkpoint(progress=_progress(files[_PROGRESS]), weights=load(files[_WEIGHTS]), moments=load(files[_MOMENTS]))


def _progress(text: bytes) -> Progress:
    fields = untrusted.json_object(text, max_bytes=untrusted.MAX_HEADER_BYTES)
    if not untrusted.is_count(step := fields.get("step")):
        raise Refused("has no number of steps")
    return Progress(
        step=step,
        losses=_losses(fields.get("losses")),
        held_out_losses=_losses(fields.get("held_out_losses")),
        loss_scale=_loss_scale(fields.get("loss_scale")),
    )


def _loss_scale(found: JsonValue) -> LossScale | None:
    if found is None:
        return None
    counts = ("good_steps", "skipped", "skipped_in_row")
    if not isinstance(found, dict) or not _is_number(scale := found.get("scale")) or not 0 < scale < MOST_SCALE:
        raise Refused("has a loss scale that is none")
    good_steps, skipped, in_row = (found.get(name) for name in counts)
    if not (untrusted.is_count(good_steps) and untrusted.is_count(skipped) and untrusted.is_count(in_row)):
        raise Refused("has a loss scale that is none")
    return LossScale(scale=float(scale), good_steps=good_steps, skipped=skipped, skipped_in_row=in_row)


def _losses(pairs: JsonValue) -> tuple[tuple[int, float], ...]:
    if not _are_pairs(pairs):
        raise Refused("has no list of losses by step")
    losses = tuple((step, loss) for step, loss in pairs if untrusted.is_count(step) and _is_number(loss))
    if len(losses) < len(pairs):
        raise Refused("has losses or steps that are no numbers")
    return losses


def _are_pairs(values: JsonValue) -> TypeGuard[list[list[JsonValue]]]:
    return isinstance(values, list) and all(isinstance(value, list) and len(value) == 2 for value in values)


def _is_number(value: JsonValue) -> TypeGuard[float]:
    return type(value) in (int, float)


def _whole(folder: Folder) -> list[str]:
    found = (entry.path.split("/") for entry in folder.list())
    return sorted(parts[0] for parts in found if len(parts) == 2 and parts[1] == MANIFEST)


def _delete(folder: Folder) -> None:
    folder.delete([MANIFEST])
    folder.delete([entry.path for entry in folder.list()])
