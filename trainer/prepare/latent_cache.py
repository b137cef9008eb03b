"""Latents and text embeddings, computed once and kept in the store by content digest; later runs only read them.

A cache entry is a folder of shards whose `index.json` is written last: a reader that finds it finds all of it.
Shards are cut from the data set alone, never from the number of workers, so the numbers in them are too.
"""

import json
import logging
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from lorafleet.errors import RunFailed
from trainer.adapters.tokens import TokenizerWithTokens
from trainer.data import readers
from trainer.data.buckets import Bucket, cover, visible
from trainer.data.decode import UnreadablePicture, decode
from trainer.families.protocol import Conditioning, Family, Parts, Posterior
from trainer.group import Group
from trainer.prepare import fitted_masks, tiling
from trainer.prepare.crops import Crop
from trainer.prepare.style import CutCaptions, PreparedStyle
from trainer.storage import Folder

_TEXT = "text."  # of a column: that a name of the family's follows
SHARD_SIZE = 64  # pictures or captions in one object
ENCODE_BATCH = 8  # in one forward pass; part of the result to the last bit, so fixed

log = logging.getLogger("lorafleet.encode")

T = TypeVar("T", int, str)
Columns = Mapping[str, Tensor]  # each (n, ...)


@dataclass(frozen=True)
class Encoded:
    """The encoded data set of one style, in memory."""

    latents: Mapping[int, Tensor]  # picture -> the mode of its latents, (channels, h, w)
    masks: Mapping[int, Tensor]  # picture -> what counts of it, from 0 to 1, (1, h, w); those of which all does are missing
    deviations: Mapping[int, Tensor]  # of them, of the same shape, where latents are sampled; else empty
    texts: Mapping[str, Conditioning]  # caption -> its conditioning by name, each (...); also holds the empty caption
    num_tokens: Mapping[str, Tensor]  # caption -> how many it has
    max_tokens: int  # that the text encoders take

    def text(self, captions: Sequence[str]) -> Conditioning:
        """By name, each (rows, ...), fp32."""
        return {name: torch.stack([self.texts[caption][name] for caption in captions]).float() for name in self.texts[""]}

    def cut(self, style: PreparedStyle) -> CutCaptions:
        """Which captions the text encoder does not take whole."""
        kept = self.max_tokens
        of_crops = zip(style.crops, style.captions, strict=True)
        lengths = {crop.picture.path: int(self.num_tokens[said]) for crop, said in of_crops if not crop.is_prior}
        return CutCaptions(max_tokens=kept, num_tokens={path: length for path, length in lengths.items() if length > kept})


def encode(style: PreparedStyle, cache: Folder, family: Family, parts: Parts, group: Group) -> Encoded:
    """Reads the style's cache entries, filling what is missing; the workers share the work. With a full cache no part is loaded."""

    def encode_latents(indices: Sequence[int]) -> Columns:
        fitted = _read_fitted([style.crops[index] for index in indices], style)
        if not tiling.is_tiled(style.crops[indices[0]].bucket):  # which those of a shard share
            return _columns(style, [family.encode_pictures(parts, fitted)])
        with tiling.in_tiles(parts[family.facts.autoencoder.name]):
            return _columns(style, [family.encode_pictures(parts, [each]) for each in fitted])

    @lru_cache(maxsize=1)
    def counting() -> Parts:
        return _knowing_tokens(style, family, parts)

    def encode_texts(captions: Sequence[str]) -> Columns:
        num_tokens = torch.tensor(family.num_tokens(counting(), captions))
        with torch.no_grad():
            found = {f"{_TEXT}{name}": _kept(rows) for name, rows in family.encode_text(parts, captions).items()}
        return {**found, "num_tokens": num_tokens}

    captions = sorted({"", *style.said})
    latents = _cached(cache.child(style.latents_digest), _shards(style, is_prior=False), encode_latents, group)
    if style.prior is not None:
        for column, rows in _cached(cache.child(style.prior_latents_digest), _shards(style, is_prior=True), encode_latents, group).items():
            latents[column].update(rows)
    texts = _cached(cache.child(style.texts_digest), _cut(captions, SHARD_SIZE), encode_texts, group)
    names = [column.removeprefix(_TEXT) for column in texts if column.startswith(_TEXT)]
    encoded = Encoded(
        latents=latents["rows"],
        masks=_masks(style, cache, latents["rows"], group),
        deviations=latents.get("deviations", {}),
        texts={caption: {name: texts[f"{_TEXT}{name}"][caption] for name in names} for caption in captions},
        num_tokens=texts["num_tokens"],
        max_tokens=style.base.facts.max_tokens,
    )
    if group.rank == 0 and (cut := encoded.cut(style)):
        log.warning("captions cut: %s", cut)
    return encoded


def _knowing_tokens(style: PreparedStyle, family: Family, parts: Parts) -> Parts:
    """Parts whose tokenizers count a style's new tokens as they are. (What is encoded of captions with them is made anew in each step.)"""
    if not (tokens := style.spec.textual_inversion.tokens):
        return parts
    knowing: dict[str, Any] = {each.name: TokenizerWithTokens(parts[each.name], tokens) for each in family.facts.tokenizers}
    return ChainMap(knowing, cast(dict[str, Any], parts))  # which only reads from them


def _masks(style: PreparedStyle, cache: Folder, latents: Mapping[int, Tensor], group: Group) -> Mapping[int, Tensor]:
    masked = style.masked
    sized = fitted_masks.by_size(list(masked), latents)
    if not sized:
        return {}
    size_of = {index: size for size, indices in sized.items() for index in indices}

    def encode_masks(indices: Sequence[int]) -> Columns:
        return {"rows": fitted_masks.fitted(style, {index: masked[index] for index in indices}, size_of[indices[0]])}

    shards = [shard for indices in sized.values() for shard in _cut(indices, SHARD_SIZE)]
    return _cached(cache.child(style.masks_digest(size_of)), shards, encode_masks, group)["rows"]


def _columns(style: PreparedStyle, found: Sequence[Posterior]) -> Columns:
    """The mode alone where nothing is sampled: half the bytes."""
    columns = {"rows": torch.cat([each.mode for each in found])}
    return {**columns, "deviations": torch.cat([each.deviation for each in found])} if style.samples_latents else columns


def _kept(rows: Tensor) -> Tensor:
    """What large text encoders computed in bf16 is kept so: in half the bytes, and no number is another once it is fp32 again."""
    return (rows if rows.dtype == torch.bfloat16 else rows.float()).cpu()


def _cached(
    folder: Folder, shards: Sequence[Sequence[T]], encode: Callable[[Sequence[T]], Columns], group: Group
) -> dict[str, dict[T, Tensor]]:
    """Each column of the entry by its name, with what it has for each item."""
    names = [f"{number:05d}.safetensors" for number in range(len(shards))]
    if not group.agree(folder.get_or_none("index.json") is not None if group.rank == 0 else None):
        _fill(folder, {names[n]: shards[n] for n in range(group.rank, len(shards), group.world_size)}, encode)
        group.barrier()
        if group.rank == 0:
            folder.put("index.json", json.dumps({"shards": names, "rows": sum(map(len, shards))}).encode())
    contents, columns = folder.read_all(names), dict[str, dict[T, Tensor]]()
    for shard, name in zip(shards, names, strict=True):
        for column, rows in load(contents[name]).items():
            columns.setdefault(column, {}).update(zip(shard, rows, strict=True))
    return columns


def _fill(folder: Folder, shards: Mapping[str, Sequence[T]], encode: Callable[[Sequence[T]], Columns]) -> None:
    """Encodes these shards."""
    for name, shard in shards.items():
        encoded = [encode(batch) for batch in _cut(shard, ENCODE_BATCH)]
        folder.put(name, save({column: torch.cat([rows[column] for rows in encoded]).contiguous() for column in encoded[0]}))


def _cut(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _shards(style: PreparedStyle, *, is_prior: bool) -> list[Sequence[int]]:
    """Crops of one set, those of a bucket together."""
    found = [(index, crop.bucket) for index, crop in enumerate(style.crops) if crop.is_prior is is_prior]
    by_bucket = [[index for index, bucket in found if bucket == each] for each in sorted({bucket for _, bucket in found})]
    return [shard for each in by_bucket for shard in _cut(each, SHARD_SIZE)]


def _read_fitted(crops: Sequence[Crop], style: PreparedStyle) -> list[Image.Image]:
    """These pictures of one set, each at the size of its bucket, of which they have one."""
    data_set = style.prior if crops[0].is_prior and style.prior is not None else style.data_set
    by_path = {crop.picture.path: crop for crop in crops}
    contents = readers.read_in_pieces(Folder(data_set.uri), {path: crop.picture.size_bytes for path, crop in by_path.items()})
    return [_decode_fitted(content, by_path[path]) for piece in contents for path, content in piece.items()]


def _decode_fitted(content: bytes, crop: Crop) -> Image.Image:
    picture, bucket = crop.picture, crop.bucket
    scaled, _ = cover(picture.width, picture.height, bucket)
    try:
        return decode(content, at_least=scaled, fit=partial(_fit, bucket=bucket))
    except UnreadablePicture as error:  # it could be read when the style was prepared
        field = "dataset.regularization.uri" if crop.is_prior else "dataset.uri"
        raise RunFailed(f"{field}: {picture.path} {error}; it has changed since the job started", reason="CORRUPT_PICTURES") from None


def _fit(picture: Image.Image, bucket: Bucket) -> Image.Image:
    """Crops and scales at once: of a thin picture only the part that is kept is ever scaled."""
    box = visible(picture.width, picture.height, bucket)
    return picture.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS, box=box)
