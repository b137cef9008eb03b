"""The shapes of a base model's weights, read from the headers of its files in the store: what the memory model counts with.

Only a few kilobytes of each file are read. A base whose headers cannot be read is trained all the same: the trainer says
what is wrong with it, and until then packs on it are limited by the number of styles alone.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Collection
from datetime import datetime, timedelta
from math import prod
from typing import Any

from lorafleet.errors import LorafleetError
from lorafleet.layout import join
from service.clock import Clock
from service.control.memory import BaseShapes, Shape
from service.storage import Store

READ_AGAIN_S = 60.0  # after a failure
MAX_HEADER_BYTES = 16 * 2**20
DENOISER = "unet/diffusion_pytorch_model.safetensors"
OTHER_PARTS = ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
FIRST_LAYER = "conv_in"

Base = tuple[str, str]  # its URI, and the reference of the store credentials that it is read with

log = logging.getLogger(__name__)


class ShapeCache:
    """The shapes of every base that was asked for."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[Base, BaseShapes | None] = {}
        self._read_again_at: dict[Base, datetime] = {}

    def known(self, uri: str, store_credentials: str = "") -> BaseShapes | None:
        """The shapes as far as they were read with these credentials: what one tenant can read is not another's to know."""
        return self._known.get((uri, store_credentials))

    async def read(self, bases: Collection[Base]) -> None:
        """Reads what is not known yet. A base that cannot be read is asked for again after a while. Never raises."""
        await asyncio.gather(*(self._read_one(base) for base in sorted(set(bases)) if self._is_due(base)))

    def _is_due(self, base: Base) -> bool:
        if self._known.get(base) is not None:
            return False
        again_at = self._read_again_at.get(base)
        return again_at is None or again_at <= self._clock.now()

    async def _read_one(self, base: Base) -> None:
        uri, store_credentials = base
        try:
            self._known[base] = await read_shapes(self._store.of(store_credentials), uri)
        except (LorafleetError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.info("the shapes of %s are not known: %s", uri, error)
            self._known[base] = None
            self._read_again_at[base] = self._clock.now() + timedelta(seconds=READ_AGAIN_S)


async def read_shapes(store: Store, uri: str) -> BaseShapes:
    """The shapes of the base at `uri`. Raises LorafleetError when the store refuses, ValueError and the like when files are bad."""
    denoiser, unet, vae = await asyncio.gather(
        _header(store, join(uri, DENOISER)), _config(store, join(uri, "unet/config.json")), _config(store, join(uri, "vae/config.json"))
    )
    others = await asyncio.gather(*(_header_or_none(_header(store, join(uri, part))) for part in OTHER_PARTS))
    return BaseShapes(
        layers={name.removesuffix(".weight"): shape for name, shape in denoiser.items() if _is_layer(name, shape)},
        num_params=_num_params(denoiser),
        num_other_params=sum(_num_params(other) for other in others),
        width=denoiser[f"{FIRST_LAYER}.weight"][0],
        latent_side=int(unet["sample_size"]),
        pixels_per_latent=2 ** (len(vae["block_out_channels"]) - 1),
    )


def _is_layer(name: str, shape: Shape) -> bool:
    return name.endswith(".weight") and len(shape) in {2, 4}


def _num_params(header: dict[str, Shape]) -> int:
    return sum(prod(shape) for shape in header.values())


async def _config(store: Store, uri: str) -> dict[str, Any]:
    text = await store.get(uri)
    if text is None:
        raise ValueError(f"{uri} is missing")
    return json.loads(text)


async def _header_or_none(header: Awaitable[dict[str, Shape]]) -> dict[str, Shape]:
    """Nothing for a part that is missing or bad: the trainer tells the user about it."""
    try:
        return await header
    except ValueError:
        return {}


async def _header(store: Store, uri: str) -> dict[str, Shape]:
    """Tensor name -> shape, from the JSON that a safetensors file begins with."""
    length = int.from_bytes(await store.get_range(uri, 0, 8) or b"", "little")
    if not 0 < length <= MAX_HEADER_BYTES:
        raise ValueError(f"{uri} is missing, or no safetensors file")
    found: dict[str, Any] = json.loads(await store.get_range(uri, 8, length) or b"")
    return {name: tuple(meta["shape"]) for name, meta in found.items() if name != "__metadata__"}
