"""The seam of a model family: what the loop needs of a base model. One small Protocol; sd1.py is the first.

`base` is a folder with the files that were looked at (trainer.base_model). Loading raises RunFailed where they do not make the part.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from lorafleet.errors import RunFailed
from trainer.untrusted import Refused

log = logging.getLogger("lorafleet.base")


class Family(Protocol):
    """Loads the parts of a base and computes with them. Stateless: the parts come back in as arguments."""

    def load_vae(self, base: Path, device: torch.device) -> nn.Module: ...

    def load_text_encoder(self, base: Path) -> nn.Module: ...

    def load_tokenizer(self, base: Path, max_tokens: int = ...) -> Any:
        """One that cuts and pads to at most `max_tokens`, whatever its own files say."""
        ...

    def load_denoiser(self, base: Path) -> nn.Module:
        """The frozen network that the adapter is put into; fp32, on CPU."""
        ...

    def load_noise_scheduler(self, base: Path) -> Any: ...

    def encode_pictures(self, vae: Any, pictures: Sequence[Image.Image]) -> Tensor:
        """Latents, scaled as the denoiser expects, fp32: (n, channels, height / factor, width / factor)."""
        ...

    def tokenize(self, tokenizer: Any, captions: Sequence[str]) -> Tensor:
        """Token ids, padded and cut: (n, tokens)."""
        ...

    def num_tokens(self, tokenizer: Any, captions: Sequence[str]) -> list[int]:
        """How many tokens each caption has before it is cut."""
        ...

    def encode_tokens(self, text_encoder: Any, tokens: Tensor) -> Tensor:
        """Text conditioning: (n, tokens, width)."""
        ...

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The denoiser's prediction, shaped as `noisy`."""
        ...

    def pipeline(self, base: Path, scheduler: str, **parts: Any) -> Any:
        """A diffusers pipeline around the given parts, for sample pictures; `scheduler` is the name of its class in diffusers."""
        ...


@contextmanager
def part_of_base(part: str) -> Iterator[None]:
    """Says of what a library raises while it loads a part that the base is at fault: no other attempt would go better."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        # A library's words may quote the base's files, which are others': they are for the log.
        log.error("%s/ of the base cannot be loaded", part, exc_info=error)
        what = str(error) if isinstance(error, Refused) else f"{type(error).__name__}; the log tells more"
        raise RunFailed(f"base_model.uri: {part}/ of the base cannot be loaded: {what}", reason="BASE_MODEL_UNUSABLE") from error
