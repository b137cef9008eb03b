"""Presets of the layers that adapters sit on, by the names that specs give them (adapter.targets): each family says which it has."""

from collections.abc import Mapping

from lorafleet.catalog.parts import ATTENTION

Presets = Mapping[str, tuple[str, ...]]  # ends of modules' names, where * is any one step; by preset
ADDED_ATTENTION = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")  # of text, where it has projections of its own
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
BOTH_FEED_FORWARDS = (*FEED_FORWARD, "ff_context.net.0.proj", "ff_context.net.2")


def presets(attention: tuple[str, ...], mlp: tuple[str, ...], others: tuple[str, ...] = (), **more: tuple[str, ...]) -> Presets:
    """`mlp`: the feed-forward layers; `others`: what else of a repeated block is a linear layer. What lies around the blocks is in none
    of them: readers take it for something else, or drop it."""
    return {"attention": attention, "attention-mlp": (*attention, *mlp), "all-linear": (*attention, *mlp, *others), **more}


def unet(*, has_linear_projections: bool, **more: tuple[str, ...]) -> Presets:
    """Of diffusers' UNet; in older ones the projections into and out of a transformer are convolutions."""
    projections = ("proj_in", "proj_out") if has_linear_projections else ()
    return presets(ATTENTION, FEED_FORWARD, ("time_emb_proj", *projections), **more)


def attention_of(block: str) -> tuple[str, ...]:
    """Of a UNet's block of transformers: both attentions of each."""
    return tuple(f"{block}.transformer_blocks.*.*.{end}" for end in ATTENTION)
