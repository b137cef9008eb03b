"""Randomness has a key, never a state: a draw depends on its key alone, not on rank, device, split or what came before.

Philox (Salmon et al., SC 2011) is counter-based; its 128-bit key is a BLAKE2b digest of the parts of the key.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a draw is for: draws of different purposes are independent. Values are part of the result; never reuse one."""

    INIT = 1
    ORDER = 2
    BUCKET = 3
    NOISE = 4
    TIMESTEP = 5
    CAPTION_DROPOUT = 6
    NOISE_OFFSET = 7
    HELD_OUT = 8
    HELD_OUT_NOISE = 9
    ADAPTER_DROPOUT = 10
    INPUT_PERTURBATION = 11
    PYRAMID_NOISE = 12
    LATENTS = 13
    PRIOR_ORDER = 14
    PRUNING = 30
    PLAIN_LORA = 31


@dataclass(frozen=True)
class Key:
    """The seed of the spec and the digest of its data set: the same wherever and with whomever the style trains."""

    seed: int
    style: str

    def generator(self, purpose: Purpose, *indices: int | str) -> np.random.Generator:
        """A generator for one draw, such as `key.generator(Purpose.NOISE, step, sample)`."""
        parts = "/".join([str(self.seed), self.style, str(int(purpose)), *map(str, indices)])
        digest = hashlib.blake2b(parts.encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
