"""Z-Image's transformer for rows of one shape: pictures of one size, texts padded to one length, with a mask of what is there.

The library's forward pass takes lists, lays the tokens of all rows end to end and pads to the longest row: adapters could not tell whose
token is whose, and a row's numbers would depend on how long its neighbours' texts are. This one computes the same with the same layers.
"""

from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF, ZImageTransformer2DModel
from torch import Tensor

KEY = "2-1"  # of the layers for squares of 2 x 2 latents of one frame
PATCH = 2


class ZImageRows(ZImageTransformer2DModel):
    """Lists go through the library's forward pass, as its pipeline calls it."""

    def forward(self, x: Any, t: Tensor, cap_feats: Any, *args: Any, present: Tensor | None = None, **more: Any) -> Any:
        """With `present`: x (rows, channels, height, width), t (rows,), cap_feats (rows, tokens, width), of which `present` says
        (rows, tokens) what is text; it lies at the beginning. Returns what is shaped as x."""
        if present is None:
            library: Any = super()  # whose types are not whole
            return library.forward(x, t, cap_feats, *args, **more)
        return self._rows(x, t, cap_feats, present)

    def _rows(self, x: Tensor, t: Tensor, text: Tensor, present: Tensor) -> Tensor:
        rows, _, height, width = x.shape
        time = self.t_embedder(t * self.t_scale).type_as(x)
        lengths = present.sum(1)  # (rows,)
        padded = (lengths + SEQ_MULTI_OF - 1) // SEQ_MULTI_OF * SEQ_MULTI_OF  # so many are attended to; those beyond are not

        picture, picture_places = self._picture(x, padded)
        for layer in self.noise_refiner:
            picture = self._through(layer, picture, None, picture_places, time)

        text, text_places = self._text(text, lengths)
        seen = torch.arange(text.shape[1], device=text.device) < padded[:, None]  # (rows, tokens)
        for layer in self.context_refiner:
            text = self._through(layer, text, seen, text_places)

        both = torch.cat([picture, text], dim=1)
        places = torch.cat([picture_places, text_places], dim=1)
        seen = torch.cat([seen.new_ones(rows, picture.shape[1]), seen], dim=1)
        for layer in self.layers:
            both = self._through(layer, both, seen, places, time)
        num_tokens = (height // PATCH) * (width // PATCH)
        tokens = self.all_final_layer[KEY](both, c=time)[:, :num_tokens]
        squares = tokens.unflatten(2, (PATCH, PATCH, -1)).unflatten(1, (height // PATCH, width // PATCH))
        return squares.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def _picture(self, x: Tensor, text_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Its tokens, filled up to a multiple of SEQ_MULTI_OF, and where they lie: behind the text, then row and column."""
        squares = torch.unflatten(torch.unflatten(x, 3, (-1, PATCH)), 2, (-1, PATCH))  # (rows, channels, height / 2, 2, width / 2, 2)
        tokens = self.all_x_embedder[KEY](squares.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        rows, num_tokens, _ = tokens.shape
        filling = -num_tokens % SEQ_MULTI_OF
        tokens = torch.cat([tokens, self.x_pad_token.to(tokens.dtype).expand(rows, filling, -1)], dim=1)
        along, across = (torch.arange(side // PATCH, device=x.device) for side in x.shape[2:])
        places = torch.stack(torch.meshgrid(along, across, indexing="ij"), dim=-1).flatten(0, 1)  # (tokens, 2)
        behind = (text_lengths + 1)[:, None, None].expand(rows, num_tokens, 1)
        ids = torch.cat([behind, places.expand(rows, -1, -1)], dim=2)
        return tokens, self._turned(torch.cat([ids, ids.new_zeros(rows, filling, 3)], dim=1))

    def _text(self, text: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Its tokens, with those that fill up in the place of what is no text, and where they lie: one behind the other, from 1."""
        text = torch.cat([text, text.new_zeros(len(text), -text.shape[1] % SEQ_MULTI_OF, text.shape[2])], dim=1)
        tokens = self.cap_embedder(text)
        order = torch.arange(text.shape[1], device=text.device)
        tokens = torch.where((order < lengths[:, None])[..., None], tokens, self.cap_pad_token.to(tokens.dtype))
        ids = torch.stack([order + 1, torch.zeros_like(order), torch.zeros_like(order)], dim=-1)
        return tokens, self._turned(ids.expand(len(text), -1, -1))

    def _turned(self, ids: Tensor) -> Tensor:
        """By how much each token is turned: (rows, tokens, half a head)."""
        return torch.unflatten(self.rope_embedder(ids.flatten(0, 1)), 0, ids.shape[:2])

    def _through(self, layer: Any, *inputs: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            checkpointed: Any = self._gradient_checkpointing_func
            return checkpointed(layer, *inputs)
        return layer(*inputs)
