"""Clip skip: a text encoder that ends before its last layers, as Stable Diffusion 2's was published, one layer short. No library's."""

from typing import Any


def without_last_layers(encoder: Any, num_skipped: int) -> Any:
    """The same encoder; its final layer norm follows the last layer that is left, which is what diffusers' `clip_skip` computes.

    Cut, not asked for a hidden state: training, samples and the empty prompt then all go by the same layer, and no layer is
    computed, or has an adapter, that nothing depends on.
    """
    if num_skipped:
        encoder.encoder.layers = encoder.encoder.layers[:-num_skipped]
        encoder.config.num_hidden_layers -= num_skipped
    return encoder
