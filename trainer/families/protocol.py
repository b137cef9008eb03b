"""The seam of a model family: what the loop needs of a base model. One small Protocol; sd1.py is the first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn


class Family(Protocol):
    """Loads the parts of a base and computes with them. Stateless: the parts come back in as arguments."""

    def load_vae(self, base: Path, device: torch.device) -> nn.Module: ...

    def load_text_encoder(self, base: Path) -> nn.Module: ...

    def load_tokenizer(self, base: Path) -> Any: ...

    def load_denoiser(self, base: Path) -> nn.Module:
        """The frozen network that the adapter is put into; fp32, on CPU."""
        ...

    def load_noise_scheduler(self, base: Path) -> Any: ...

    def encode_pictures(self, vae: Any, pictures: Sequence[Image.Image]) -> Tensor:
        """Latents, scaled as the denoiser expects, fp32: (n, channels, height / factor, width / factor)."""
        ...

    def tokenize(self, tokenizer: Any, captions: Sequence[str]) -> Tensor:
        """Token ids, padded: (n, tokens)."""
        ...

    def encode_tokens(self, text_encoder: Any, tokens: Tensor) -> Tensor:
        """Text conditioning: (n, tokens, width)."""
        ...

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The denoiser's prediction, shaped as `noisy`."""
        ...

    def pipeline(self, base: Path, denoiser: Any, text_encoder: Any) -> Any:
        """A diffusers pipeline around the given parts, for sample pictures."""
        ...
