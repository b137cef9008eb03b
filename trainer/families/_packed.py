"""What FLUX.1 and those made from it share: latents in squares of 2 x 2 as tokens, and where each token lies in the picture.

As diffusers' FluxPipeline does it (`_pack_latents`, `_unpack_latents`, `_prepare_latent_image_ids`).
"""

import torch
from torch import Tensor

PATCH = 2


def packed(latents: Tensor) -> Tensor:
    """(rows, channels, height, width) -> (rows, height / 2 * width / 2, channels * 4)."""
    squares = torch.unflatten(torch.unflatten(latents, 3, (-1, PATCH)), 2, (-1, PATCH))  # (rows, channels, height / 2, 2, width / 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The reverse; `height` and `width` in latents."""
    squares = torch.unflatten(torch.unflatten(tokens, 2, (-1, PATCH, PATCH)), 1, (height // PATCH, width // PATCH))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def places(height: int, width: int, device: torch.device) -> Tensor:
    """(tokens, 3) of a picture of so many latents: nothing, row, column."""
    along = (torch.arange(side // PATCH, device=device) for side in (height, width))
    rows, columns = torch.meshgrid(*along, indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).to(torch.float32)


def no_places(num_tokens: int, device: torch.device) -> Tensor:
    """(tokens, 3) of text, which lies nowhere."""
    return torch.zeros(num_tokens, 3, device=device)
