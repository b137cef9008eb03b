"""The seam of a model family: what the loop needs of a base model. A new family is one file beside sd1.py, and its facts.

`base` is a folder with the files that were looked at (prepare.base_model). Loading raises RunFailed where they do not make the part.
"""

import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from lorafleet.catalog import Family as FamilyFacts
from lorafleet.errors import RunFailed
from lorafleet.spec import Spec, ValidationSpec
from trainer.data.buckets import PictureSize
from trainer.objectives.protocol import Objective
from trainer.untrusted import Refused

log = logging.getLogger("lorafleet.base")

# A base's parts by name; each is loaded when it is first asked for.
Parts = Mapping[str, Any]
# What the denoiser goes by besides the noised latents: tensors by name, each (rows, ...). Only their family knows the names.
Conditioning = Mapping[str, Tensor]
# Tensors of a part's files by the names that they have there. Whoever goes through them may keep them.
Weights = Iterable[tuple[str, Tensor]]


class Posterior(NamedTuple):
    """What an autoencoder makes of pictures: independent normals, scaled as the denoiser expects, fp32 on the CPU."""

    mode: Tensor  # (rows, channels, height, width)
    deviation: Tensor  # shaped as mode


@dataclass(frozen=True)
class Loading:
    """How a part is to be loaded."""

    max_tokens: int  # to which a tokenizer cuts and pads at most, whatever its own files say
    dtype: torch.dtype = torch.float32
    quantised: str = ""  # the name of its quantisation; nothing: none
    weights: Weights | None = None  # None: they lie in the base's folder


class Family(Protocol):
    """Loads the parts of a base and computes with them. Stateless: the parts come back in as arguments."""

    facts: FamilyFacts

    def load(self, part: str, base: Path, how: Loading) -> Any:
        """A part, frozen, on the CPU. It is never held larger than it will be: weights are brought to `how` as they are read."""
        ...

    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Posterior:
        """The latents of pictures of one size."""
        ...

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """What of the conditioning follows from the captions alone, and is worth keeping; differentiable.

        `parts` may be without the text encoders that adapters never sit on: then without what these alone give.
        """
        ...

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        """How many tokens each caption has before it is cut."""
        ...

    def condition(self, text: Conditioning, sizes: Sequence[PictureSize]) -> Conditioning:
        """The whole conditioning of rows: their text, and what follows from the sizes of their pictures."""
        ...

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's prediction, shaped as `noisy`. `times`: (rows,), as the objective draws them."""
        ...

    def objective(self, parts: Parts, spec: Spec) -> Objective:
        """What the denoiser of this base is trained for."""
        ...

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        """A diffusers pipeline around the parts, for sample pictures; `scheduler` is the name of its class in diffusers."""
        ...

    def drawing(self, parts: Parts, spec: ValidationSpec) -> Mapping[str, Any]:
        """What that pipeline is called with besides prompts, size, steps and generators: its guidance, and how long its texts are."""
        ...


@contextmanager
def part_of_base(part: str) -> Generator[None]:
    """Says of what a library raises while it loads a part that the base is at fault: no other attempt would go better."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RunFailed):  # the last is the store's
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        # A library's words may quote the base's files, which are others': they are for the log.
        log.error("%s/ of the base cannot be loaded", part, exc_info=error)
        what = str(error) if isinstance(error, Refused) else f"{type(error).__name__}; the log tells more"
        raise RunFailed(f"base_model.uri: {part}/ of the base cannot be loaded: {what}", reason="BASE_MODEL_UNUSABLE") from error
