"""Latents and text embeddings, computed once and kept in the store by content digest; later runs only read them.

A cache entry is a folder of shards whose `index.json` is written last: a reader that finds it finds all of it.
Shards are cut from the data set alone, never from the number of workers, so the numbers in them are too.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from trainer.data import readers
from trainer.data.buckets import Bucket, cover
from trainer.families.protocol import Family
from trainer.group import Group
from trainer.prepare import PreparedStyle
from trainer.storage import Folder

SHARD_SIZE = 64  # pictures or captions in one object
ENCODE_BATCH = 8  # in one forward pass; part of the result to the last bit, so fixed

T = TypeVar("T", int, str)

# Loads an encoder when the first shard needs it: with a full cache it never is.
Lazy = Callable[[], Any]


@dataclass(frozen=True)
class Encoded:
    """The encoded data set of one style, in memory."""

    latents: Mapping[int, Tensor]  # picture -> (channels, h, w)
    texts: Mapping[str, Tensor]  # caption -> (tokens, width); also holds the empty caption

    def text(self, captions: Sequence[str]) -> Tensor:
        return torch.stack([self.texts[caption] for caption in captions])


def encode(style: PreparedStyle, cache: Folder, family: Family, vae: Lazy, text_encoder: Lazy, tokenizer: Lazy, group: Group) -> Encoded:
    """Reads the style's cache entries, filling what is missing; the workers share the work."""
    pictures = Folder(style.spec.dataset.uri)

    def encode_latents(indices: Sequence[int]) -> Tensor:
        contents = pictures.read_all([style.data_set.pictures[i].path for i in indices])
        sized = [_fit(readers.decode(contents[style.data_set.pictures[i].path]), style.buckets[i]) for i in indices]
        return family.encode_pictures(vae(), sized)

    def encode_texts(captions: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return family.encode_tokens(text_encoder(), family.tokenize(tokenizer(), captions)).float().cpu()

    captions = sorted({"", *style.captions})
    by_bucket = [[i for i, bucket in enumerate(style.buckets) if bucket == each] for each in sorted(set(style.buckets))]
    latents = _cached(
        cache.child(style.latents_digest), [shard for each in by_bucket for shard in _cut(each, SHARD_SIZE)], encode_latents, group
    )
    texts = _cached(cache.child(style.texts_digest), _cut(captions, SHARD_SIZE), encode_texts, group)
    return Encoded(latents=latents, texts=texts)


def _cached(folder: Folder, shards: Sequence[Sequence[T]], encode: Callable[[Sequence[T]], Tensor], group: Group) -> dict[T, Tensor]:
    names = [f"{number:05d}.safetensors" for number in range(len(shards))]
    if not group.agree(folder.get_or_none("index.json") is not None if group.rank == 0 else None):
        _fill(folder, {names[n]: shards[n] for n in range(group.rank, len(shards), group.world_size)}, encode)
        group.barrier()
        if group.rank == 0:
            folder.put("index.json", json.dumps({"shards": names, "rows": sum(map(len, shards))}).encode())
    contents = folder.read_all(names)
    return {
        item: row for shard, name in zip(shards, names, strict=True) for item, row in zip(shard, load(contents[name])["rows"], strict=True)
    }


def _fill(folder: Folder, shards: Mapping[str, Sequence[T]], encode: Callable[[Sequence[T]], Tensor]) -> None:
    """Encodes these shards."""
    for name, shard in shards.items():
        rows = torch.cat([encode(batch) for batch in _cut(shard, ENCODE_BATCH)])
        folder.put(name, save({"rows": rows.contiguous()}))


def _cut(items: Sequence, size: int) -> list[Sequence]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _fit(picture: Image.Image, bucket: Bucket) -> Image.Image:
    size, box = cover(picture.width, picture.height, bucket)
    scaled = picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
    return scaled if scaled.size == (box[2], box[3]) else scaled.crop(box)
