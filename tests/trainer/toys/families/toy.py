"""A toy family: a convolutional painter that hears the words of a caption, with parts and a pipeline of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from lorafleet.spec import Spec, ValidationSpec
from tests.trainer.toys.catalog.families.toy import FACTS
from tests.trainer.toys.objectives.straight import Straight
from trainer.data.buckets import PictureSize
from trainer.families.protocol import Conditioning, Family, Loading, Parts, Posterior, part_of_base
from trainer.losses import LOSSES
from trainer.objectives.protocol import Objective

MAX_LETTERS = 24


class ToyCoder(nn.Module):
    """Pixels (rows, 3, height, width) from -1 to 1, and latents (rows, 4, height / 4, width / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.encoder(F.avg_pool2d(pixels, 4))

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(self.decoder(latents), scale_factor=4.0)


class ToyReader(nn.Module):
    """Letters (rows, letters) -> what is read of each, (rows, letters, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.read = nn.Embedding(256, 16), nn.Linear(16, 16)

    def forward(self, letters: Tensor) -> Tensor:
        return self.read(self.letters(letters)).tanh()


class ToyPainter(nn.Module):
    """Says of noised latents where they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.mix, self.conv_out = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
        self.hear, self.feel = nn.Linear(16, 16, bias=False), nn.Linear(2, 16)

    def forward(self, noisy: Tensor, times: Tensor, words: Tensor, present: Tensor, shape: Tensor) -> Tensor:
        heard = (self.hear(words) * present[..., None]).sum(1) / present.sum(1, keepdim=True)  # (rows, 16)
        felt = self.feel(torch.stack([times, shape], dim=1))
        h = F.silu(self.conv_in(noisy) + (heard + felt)[:, :, None, None])
        return self.conv_out(F.silu(h + self.mix(h)))


CLASSES: dict[str, type[nn.Module]] = {"coder": ToyCoder, "reader": ToyReader, "painter": ToyPainter}


class Toy:
    """Conditioning: `words` (rows, letters, 16), `present` (rows, letters) and `shape` (rows,), of the picture."""

    facts = FACTS

    def load(self, part: str, base: Path, how: Loading) -> Any:
        with part_of_base(part):
            model = CLASSES[part]()
            model.load_state_dict(load_file(next((base / part).glob("*.safetensors"))))
        return model.eval().requires_grad_(False)

    @torch.no_grad()
    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Posterior:
        """Its coder is sure of what it makes."""
        pixels = torch.from_numpy(np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])).permute(0, 3, 1, 2)
        mode = parts["coder"].encode(pixels / 127.5 - 1).float().cpu()
        return Posterior(mode, torch.zeros_like(mode))

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        letters = torch.zeros(len(captions), MAX_LETTERS, dtype=torch.long)
        for row, caption in enumerate(captions):
            heard = f"\n{caption}".encode()[:MAX_LETTERS]
            letters[row, : len(heard)] = torch.tensor(list(heard))
        return {"words": parts["reader"](letters), "present": (letters > 0).float()}

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        return [len(caption.encode()) + 1 for caption in captions]

    def condition(self, text: Conditioning, sizes: Sequence[PictureSize]) -> Conditioning:
        return {**text, "shape": torch.tensor([size.original_width / size.original_height for size in sizes])}

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        return parts["painter"](noisy, times, **conditioning)

    def objective(self, parts: Parts, spec: Spec) -> Objective:
        return Straight(LOSSES.get(spec.objective.loss))

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        return ToyPipeline(self, {name: parts[name] for name in CLASSES})

    def drawing(self, parts: Parts, spec: ValidationSpec) -> Mapping[str, Any]:
        return {"guidance_scale": spec.guidance_scale}


class ToyPipeline:
    """Walks from noise to a picture in straight steps."""

    def __init__(self, family: Toy, parts: Parts) -> None:
        self.family, self.parts = family, parts

    def to(self, device: torch.device) -> "ToyPipeline":
        for part in self.parts.values():
            part.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self,
        *,
        prompt: Sequence[str],
        width: int,
        height: int,
        generator: Sequence[torch.Generator],
        guidance_scale: float,
        num_inference_steps: int,
    ) -> Any:
        text = self.family.encode_text(self.parts, prompt)
        conditioning = self.family.condition(text, [PictureSize(height, width, 0, 0, height, width)] * len(prompt))
        latents = torch.stack([torch.randn(4, height // 4, width // 4, generator=each) for each in generator])
        for step in range(num_inference_steps, 0, -1):
            times = torch.full((len(prompt),), step / num_inference_steps)
            latents = latents - self.family.predict(self.parts, latents, times, conditioning) / num_inference_steps
        pixels = (self.parts["coder"].decode(latents).clamp(-1, 1) * 127.5 + 127.5).round().byte()
        return SimpleNamespace(images=[Image.fromarray(row.permute(1, 2, 0).numpy()) for row in pixels])


FAMILY: Family = Toy()
