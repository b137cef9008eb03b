"""What a kind of base says to be trained, and what all kinds share. `training.py` trains one without knowing which."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from examples.bases.pictures import Captioned


@dataclass(frozen=True)
class Trained:
    """A part that is trained, and the highest rate of it: warm ones have a low one."""

    name: str
    module: nn.Module
    rate: float


class Kind(Protocol):
    """One base in the making. Its pipeline draws with the weights as they are; `loss` is differentiated by whoever trains."""

    pipeline: Any
    drawing: Mapping[str, Any]  # how pictures are drawn while it is trained

    @property
    def trained(self) -> Sequence[Trained]: ...

    def prepare(self, rows: Captioned, generator: torch.Generator) -> None:
        """What is done once, before anything is trained by `loss`."""
        ...

    def loss(self, rows: Captioned, which: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
        """Of rows `which`, those not `kept` without their captions: (rows,), mean square of what was predicted."""
        ...


def save(pipeline: Any, folder: Path) -> None:
    """As diffusers and lorafleet read it, in half precision; without the addresses that parts were read from."""
    copy.deepcopy(pipeline).to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):
        config = {name: value for name, value in json.loads(path.read_text()).items() if name != "_name_or_path"}
        path.write_text(json.dumps(config, indent=2) + "\n")


def token_ids(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """(rows, tokens), padded to the tokenizer's own length."""
    length = tokenizer.model_max_length
    return tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Share of the highest rate: up a line, down half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))
