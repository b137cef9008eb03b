"""Krea 2's fusion of text with rows first: the library lays all tokens of all rows end to end while it attends across layers.

Adapters could not tell whose token is whose. This computes the same with the same layers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_krea2 import Krea2AttnProcessor, Krea2TextFusion
from torch import Tensor


def by_rows(transformer: Any) -> Any:
    """The same transformer, which keeps to its rows from now on."""
    transformer.text_fusion.__class__ = FusionByRows
    for block in transformer.text_fusion.layerwise_blocks:
        block.attn.set_processor(AcrossLayers(transformer.config.num_text_layers))
    return transformer


class FusionByRows(Krea2TextFusion):
    """Makes one state of each token's layers."""

    def forward(self, encoder_hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(rows, tokens, layers, width) -> (rows, tokens, width)."""
        layered = encoder_hidden_states.flatten(1, 2)
        for block in self.layerwise_blocks:
            layered = block(layered)
        text = self.projector(torch.unflatten(layered, 1, encoder_hidden_states.shape[1:3]).mT).squeeze(-1)
        for block in self.refiner_blocks:
            text = block(text, attention_mask=attention_mask)
        return text


class AcrossLayers(Krea2AttnProcessor):
    """Each token's layers see one another and nothing else; they lie one behind the other, token by token."""

    def __init__(self, num_layers: int) -> None:
        self.num_layers = num_layers

    def __call__(
        self, attn: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, image_rotary_emb: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """(rows, tokens * layers, width) -> the same."""

        def heads(x: Tensor) -> Tensor:  # (rows * tokens, layers, heads, width of a head)
            return torch.unflatten(torch.unflatten(x, 2, (-1, attn.head_dim)), 1, (-1, self.num_layers)).flatten(0, 1)

        query, key = attn.norm_q(heads(attn.to_q(hidden_states))), attn.norm_k(heads(attn.to_k(hidden_states)))
        shared = attn.num_heads // attn.num_kv_heads  # heads that look at one key
        key, value = (each.repeat_interleave(shared, dim=2).transpose(1, 2) for each in (key, heads(attn.to_v(hidden_states))))
        seen = F.scaled_dot_product_attention(query.transpose(1, 2), key, value).transpose(1, 2)
        return attn.to_out[0](seen.reshape(hidden_states.shape) * attn.to_gate(hidden_states).sigmoid())
