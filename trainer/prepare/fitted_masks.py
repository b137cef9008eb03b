"""Masks brought to the size of their pictures' latents: cropped as the pictures are, each place the mean over the pixels it stands for."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lorafleet.errors import RunFailed
from trainer.data import masks, readers
from trainer.data.buckets import Bucket, visible
from trainer.data.decode import UnreadablePicture
from trainer.data.masks import Mask
from trainer.prepare.style import PreparedStyle
from trainer.storage import Folder
from trainer.typed_torch import from_array

Size = tuple[int, int]  # height, width, in latents


def fitted(style: PreparedStyle, masked: Mapping[int, Mask], size: Size) -> Tensor:
    """Masks by their pictures -> (rows, 1, height, width), from 0 to 1."""
    pieces = readers.read_in_pieces(Folder(style.spec.dataset.uri), {mask.path: mask.size_bytes for mask in masked.values()})
    contents = {path: content for piece in pieces for path, content in piece.items()}
    is_alpha = style.spec.dataset.masks == "alpha"
    return torch.stack([_fitted(contents[mask.path], mask, style.crops[index].bucket, size, is_alpha) for index, mask in masked.items()])


def _fitted(content: bytes, mask: Mask, bucket: Bucket, size: Size, is_alpha: bool) -> Tensor:
    """(1, height, width)"""
    height, width = size

    def fit(whole: Image.Image) -> Image.Image:
        return whole.resize((width, height), Image.Resampling.BOX, box=visible(whole.width, whole.height, bucket))

    try:
        found = masks.of_alpha(content, fit) if is_alpha else masks.of_file(content, fit)
    except UnreadablePicture as error:  # it could be read when the style was prepared
        raise RunFailed(f"dataset.uri: {mask.path} {error}; it has changed since the job started", reason="CORRUPT_PICTURES") from None
    return from_array(np.asarray(found.picture, dtype=np.float32))[None] / 255


def by_size(masked: Sequence[int], latents: Mapping[int, Tensor]) -> dict[Size, list[int]]:
    """Pictures by the size of their latents, in order."""
    found: dict[Size, list[int]] = {}
    for index in masked:
        height, width = latents[index].shape[-2:]
        found.setdefault((height, width), []).append(index)
    return dict(sorted(found.items()))
