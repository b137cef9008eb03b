"""Loads the parts of a base, each whole or not at all, and only of the classes that its family's facts name."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from torch import Tensor

from lorafleet.catalog.part import Part, PartKind
from trainer.families import _arriving
from trainer.families.protocol import Loading, Posterior, part_of_base
from trainer.typed_torch import from_array
from trainer.untrusted import Refused

_SAFE: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}


def load(part: Part, folder: Path, how: Loading, training_scheduler: Any) -> Any:
    """A part, as families.protocol.Family.load gives it. `training_scheduler`: the class that noises as training does."""
    match part.kind:
        case PartKind.TOKENIZER:
            return _tokenizer(_class_of(part), folder, how.max_tokens)
        case PartKind.SCHEDULER:
            with part_of_base(part.name):
                return training_scheduler.from_pretrained(folder, local_files_only=True)
        case _:
            return _whole(_class_of(part), folder, how)


def sampling_scheduler(base: Path, scheduler: str) -> Any:
    """The base's own scheduler, by the name of its class in diffusers."""
    with part_of_base("scheduler"):
        return getattr(diffusers, scheduler).from_pretrained(base / "scheduler", local_files_only=True)


def without_progress_bar(pipeline: Any) -> Any:
    """The same pipeline of diffusers."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as an autoencoder takes them, from -1 to 1: (rows, 3, height, width)."""
    arrays = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])  # (n, height, width, 3)
    return from_array(arrays).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def latents_of(vae: Any, pictures: Sequence[Image.Image]) -> Posterior:
    """Of diffusers' AutoencoderKL, moved and scaled as its config says."""
    found = vae.encode(pixels_of(pictures).to(vae.device)).latent_dist
    mode = (found.mode() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return Posterior(mode.float().cpu(), (found.std * vae.config.scaling_factor).float().cpu())


def tokenize(tokenizer: Any, captions: Sequence[str]) -> Any:
    """`input_ids` and `attention_mask`, padded and cut: each (rows, tokens)."""
    return tokenizer(list(captions), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")


def first_those_there(states: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's states, (rows, tokens, width), with those that are `there` moved to the beginning; and which those are then."""
    order = (~there).to(torch.uint8).argsort(dim=1, stable=True)
    return states.gather(1, order[..., None].expand_as(states)), there.gather(1, order)


def num_tokens(tokenizer: Any, captions: Sequence[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids]


def _class_of(part: Part) -> Any:
    return getattr(importlib.import_module(part.library), part.classes[0])


def _tokenizer(kind: Any, folder: Path, max_tokens: int) -> Any:
    with part_of_base(folder.name):
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    tokenizer.model_max_length = min(tokenizer.model_max_length, max_tokens)
    return tokenizer


def _whole(kind: Any, folder: Path, how: Loading) -> Any:
    """A model with every weight from its files. The libraries only warn of missing ones, and draw them at random."""
    with part_of_base(folder.name):
        if _is_of_diffusers(kind) and (how.quantised or how.weights is not None):
            return _arriving.of_diffusers(kind, folder, how).eval().requires_grad_(False)
        if how.weights is not None:
            model, found = _arriving.of_transformers(kind, folder, how)
        else:
            model, found = kind.from_pretrained(folder, dtype=how.dtype, **_SAFE)
        if missing := sorted(found["missing_keys"]):
            raise Refused(f"its files lack {len(missing)} of its weights, such as {missing[0]}")
        if how.quantised:
            _arriving.quantise(model, how.quantised)
    return model.eval().requires_grad_(False)


def _is_of_diffusers(kind: Any) -> bool:
    return issubclass(kind, ModelMixin)
