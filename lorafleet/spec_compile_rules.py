"""The rules of a spec over `training.compile`: what cannot be compiled, or recorded as a graph, and why. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from lorafleet.catalog import PRECISIONS
from lorafleet.spec_rules import Rule


def _drops_nothing(chosen: str, dropout: float, overrides: Sequence[Mapping[str, Any]]) -> str | None:
    if chosen == "none":
        return None
    if dropout:
        where = "adapter.dropout"
    else:
        where = next((f"adapter.overrides[{number}].dropout" for number, each in enumerate(overrides) if each.get("dropout")), "")
    if not where:
        return None
    return f'"{chosen}" has no dropout, whose masks the host draws for each layer: leave {where} out, or use none'


def _base_is_whole(chosen: str, zero_stage: int) -> str | None:
    if chosen == "none" or zero_stage < (3 if chosen == "blocks" else 1):
        return None
    what = "gathers each layer's weights while it runs" if chosen == "blocks" else "puts weights and gradients elsewhere between passes"
    return f'"{chosen}" needs whole weights in one place, and cluster.zero_stage {zero_stage} {what}; use zero_stage 0, or none'


def _graph_reads_no_captions(chosen: str, text_encoder: bool) -> str | None:
    if chosen != "graph" or not text_encoder:
        return None
    return '"graph" holds no text encoders, whose captions the host reads in each pass: leave adapter.text_encoder out, or use blocks'


def _graph_reads_no_tokens(chosen: str, tokens: Sequence[Any]) -> str | None:
    if chosen != "graph" or not tokens:
        return None
    return '"graph" holds no text encoders, whose captions the host reads in each pass: use blocks for new tokens'


def _graph_keeps_all(chosen: str, recomputes: bool) -> str | None:
    if chosen != "graph" or not recomputes:
        return None
    return '"graph" keeps all that a pass computes in memory of its own, and training.gradient_checkpointing nothing: use blocks with it'


def _graph_knows_the_kernels(chosen: str, precision: str) -> str | None:
    if chosen != "graph" or PRECISIONS.get(precision).is_recorded:
        return None
    return f'"graph" would record the kernels of {precision}, which are not known to allow it: use blocks, or another training.precision'


_COMPILE = ("training", "compile")
RULES = (
    Rule((_COMPILE, ("adapter", "dropout"), ("adapter", "overrides")), _drops_nothing),
    Rule((_COMPILE, ("cluster", "zero_stage")), _base_is_whole),
    Rule((_COMPILE, ("adapter", "text_encoder")), _graph_reads_no_captions),
    Rule((_COMPILE, ("textual_inversion", "tokens")), _graph_reads_no_tokens),
    Rule((_COMPILE, ("training", "gradient_checkpointing")), _graph_keeps_all),
    Rule((_COMPILE, ("training", "precision")), _graph_knows_the_kernels),
)
