"""Whether a style has learned the same alone and in company: its losses step by step, and its adapter. Starts nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorafleet.blobs import blobs_at
from lorafleet.contract.layout import JobLayout, adapter_file
from lorafleet.v1 import training_service_pb2 as pb

PROGRESS = "progress.json"

Arrays = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between two trainings of one style."""

    max_relative_loss_diff: float
    cosine_similarity: float  # of the whole adapters


def difference(one: pb.TrainingJob, other: pb.TrainingJob, num_steps: int) -> Difference:
    return Difference(
        max_relative_loss_diff=max_relative_diff(_losses(one, num_steps), _losses(other, num_steps)),
        cosine_similarity=cosine_similarity(_adapter(one), _adapter(other)),
    )


def max_relative_diff(losses: Mapping[int, float], expected: Mapping[int, float]) -> float:
    """The largest over all steps. Raises ValueError unless both have the same steps."""
    if not losses or losses.keys() != expected.keys():
        raise ValueError(f"losses of {len(losses)} steps cannot be compared with those of {len(expected)}: not the same steps")
    return max(abs(losses[step] - expected[step]) / abs(expected[step]) for step in losses)


def cosine_similarity(one: Arrays, other: Arrays) -> float:
    """Of all tensors laid end to end by name, in float64. Raises ValueError unless both have the same tensors."""
    shapes = [{name: tensor.shape for name, tensor in each.items()} for each in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError("the adapters do not have the same tensors")
    a, b = (np.concatenate([each[name].ravel() for name in sorted(each)]).astype(np.float64) for each in (one, other))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _losses(job: pb.TrainingJob, num_steps: int) -> dict[int, float]:
    """By step, exactly as they were: the checkpoint of the last step keeps them all."""
    with blobs_at(JobLayout(job.output_uri).checkpoint(num_steps)).open(PROGRESS) as file:
        return dict(json.load(file)["losses"])


def _adapter(job: pb.TrainingJob) -> Arrays:
    from safetensors.numpy import load

    name = job.spec.output.name or job.name.rpartition("/")[2]
    with blobs_at(job.artifact.uri).open(adapter_file("diffusers", name)) as file:
        return load(file.read())
